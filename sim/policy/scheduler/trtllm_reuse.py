"""TensorRT-LLM's reuse delay: a prompt waits a step if another one computes the block that it needs next.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp (beneficialToSkip).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..kv.blocks import KvCache, PrefixHit
from ..kv.contiguous import ContiguousKvCache
from ..kv.plain import PlainKvCache
from ..kv.runs import BlockRuns, runs_of
from ..live_request import LiveRequest


class ReuseDelay:
    """Which blocks the prompts of one step contribute, and who had better wait for them."""

    def __init__(self, kv: KvCache, *, is_on: bool) -> None:
        self._kv = kv
        self._is_on = is_on and not isinstance(kv, PlainKvCache | ContiguousKvCache)
        self._contributed: set[BlockRuns] = set()
        self.has_delayed = False

    def begin(self, computing: Iterable[LiveRequest]) -> None:
        """Begins a step in which these prompts go on, whatever they contribute."""
        self.has_delayed = False
        if self._is_on:
            first_new = (self._first_new(live, self._kv.lookup(live)) for live in computing)
            self._contributed = {block for block in first_new if block is not None}

    def delays(self, live: LiveRequest, hit: PrefixHit) -> bool:
        """Returns whether a prompt is to wait; else notes what it contributes."""
        block = self._first_new(live, hit) if self._is_on else None
        if block is None:
            return False
        if block in self._contributed:
            self.has_delayed = True
            return True
        self._contributed.add(block)
        return False

    def _first_new(self, live: LiveRequest, hit: PrefixHit) -> BlockRuns | None:
        """Returns all content up to the first full block not cached, which names it; None without one."""
        size, num_blocks = self._kv.block_size, hit.num_blocks + 1
        if live.request.content is None or num_blocks * size > live.num_tokens:
            return None
        named: list[tuple[object, int]] = []
        for key, run_blocks in runs_of(live, size):
            named.append((key, min(run_blocks, num_blocks)))
            num_blocks -= run_blocks
            if num_blocks <= 0:
                break
        return tuple(named)
