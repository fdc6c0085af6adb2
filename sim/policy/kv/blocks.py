"""The contract between schedulers and the KV cache, and the cache without prefix sharing.

Blocks are counted, not numbered: no cost and no policy depends on which block it is. Schedulers take the
blocks of decodes for a whole batch at once, so a request's holding follows from its computed tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..live_request import LiveRequest

if TYPE_CHECKING:
    from .prefix import PrefixNode
    from .tiers.load_plan import LoadPlan


def num_blocks_for(num_tokens: int, block_size: int) -> int:
    """Returns the blocks that `num_tokens` tokens fill, the last one perhaps in part."""
    return -(-num_tokens // block_size)


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """Cached blocks that a request may take over.

    num_free_blocks: those of them that nobody holds, so that taking them uses up free blocks.
    num_copied_tokens: tokens of one more block that are copied into a block of the request's own.
    load: which of the blocks are not in HBM yet, and how they get there; None if all are.
    """

    num_blocks: int = 0
    num_free_blocks: int = 0
    path: Sequence[tuple[PrefixNode, int]] = ()
    num_copied_tokens: int = 0
    load: LoadPlan | None = None


NO_HIT = PrefixHit()


@dataclass(slots=True)
class PrefixStats:
    """Prompt tokens looked up, hit, and missed by reason.

    no_shared_prefix: nobody had cached such tokens; evicted: they had been cached before; below_block: the
    rest of a partial block, or the last block of a prompt that is cached whole.
    """

    query_tokens: int = 0
    hit_tokens: int = 0
    misses: dict[str, int] = field(
        default_factory=lambda: {"no_shared_prefix": 0, "below_block": 0, "evicted": 0}
    )


class KvCache(Protocol):
    """Blocks of one replica; cached blocks that nobody holds count as free."""

    block_size: int
    num_blocks: int
    stats: PrefixStats

    @property
    def num_free(self) -> int:
        """Blocks that can be taken now."""
        ...

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns the longest cached prefix of the request. Does not modify the cache."""
        ...

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Gives the request the blocks of its first `num_tokens` tokens, which the step computes.

        hit: what `lookup` just found; the blocks beyond it are taken as `take` does. vLLM's cache notes them
        as `computed` does; those of engines whose schedulers tell when a step has ended wait for that.
        """
        ...

    def take(self, num_blocks: int) -> None:
        """Takes free blocks, evicting the oldest unreferenced content.

        Raises: InvariantError if num_blocks > num_free.
        """
        ...

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Notes that the request's first `num_tokens` tokens are in the cache, in blocks it has taken."""
        ...

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees all blocks of a request with `num_computed` tokens in the cache."""
        ...

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Checks that blocks held and free add up to all blocks.

        holders: every request that holds blocks, with its tokens in the cache.
        Raises: InvariantError with the sum.
        """
        ...
