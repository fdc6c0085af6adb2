"""What TensorRT-LLM's reuse of blocks changes of the tree and the queue in `prefix.py`.

There, too, full blocks form a tree, and a free block keeps its content until it is taken. But a prompt's
blocks can be reused only once the prompt is computed, not as soon as its step is scheduled. Blocks have a
retention priority: the least recently released one of the lowest priority is taken first, and all that
follows it in the tree is lost with it. And of a block whose beginning fits, that part is copied.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp and evictionPolicy.cpp (behaviour, read
2026-11); KvCacheRetentionConfig in cpp/include/tensorrt_llm/executor/executor.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..live_request import LiveRequest
from .runs import content_after

if TYPE_CHECKING:
    from .prefix import PrefixNode

DEFAULT_PRIORITY = 35


@dataclass(frozen=True, slots=True)
class BlockReuse:
    """Retention priorities, 0 to 100, of prompts' and of answers' blocks; whether parts of blocks are copied.

    at_once: what is computed can be reused as soon as its step is scheduled, for schedulers that don't tell
    when it has been computed.
    """

    prompt_priority: int = DEFAULT_PRIORITY
    output_priority: int = DEFAULT_PRIORITY
    is_partial: bool = True
    at_once: bool = False

    def levels(self) -> tuple[int, int, int, int]:
        """Returns the queue's levels of prompts, answers and unused blocks, and how many levels there are."""
        ranks = sorted({self.prompt_priority, self.output_priority, DEFAULT_PRIORITY})
        prompt, output, unused = map(
            ranks.index, (self.prompt_priority, self.output_priority, DEFAULT_PRIORITY)
        )
        return prompt, output, unused, len(ranks)


def count_start(node: PrefixNode, key: object, change: int) -> None:
    """Notes that `node` has one child more or fewer that begins inside a content run."""
    if isinstance(key, tuple):
        content_id, num_tokens = key[0]
        if node.starts is None:
            node.starts = {}
        counts = node.starts.setdefault(content_id, {})
        counts[num_tokens] = counts.get(num_tokens, 0) + change
        if not counts[num_tokens]:
            del counts[num_tokens]


def copied_tokens(
    live: LiveRequest, node: PrefixNode, num_blocks: int, block_size: int, *, is_inside: bool
) -> int:
    """Returns the tokens that the block after a hit shares with one that is cached in its place.

    node: the last of the hit's `num_blocks` blocks, which goes on (is_inside) or not.
    """
    # SIMPLIFIED: only what both blocks begin with is compared, up to the first change of content, and
    # blocks that were never full are not kept; effect: less than a block per hit.
    position = num_blocks * block_size
    content_id, num_tokens = content_after(live, position)
    most = min(num_tokens, block_size, live.num_tokens - 1 - position)
    if is_inside:
        return most if node.key == content_id else 0
    if content_id in node.children:
        return most
    starts = node.starts.get(content_id) if node.starts is not None else None
    return min(most, max(starts)) if starts else 0
