"""The KV cache of engines that schedule the samples of one request as a group, as vLLM V0 does.

The prompt is computed once. Its full blocks belong to all samples, by reference count; each has its own
blocks from the prompt's last one on, which all but one of them copy when they write into it.
SIMPLIFIED: those copies are taken together with the prompt's blocks, and cost no time; effect: a block per
sample more while the prompt is computed, some microseconds less afterwards.
Source: vLLM vllm/core/block_manager.py, fork and copy on write (v0.6, behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable

from ....errors import InvariantError
from ..live_request import LiveRequest, SampleGroup
from .blocks import PrefixHit, num_blocks_for
from .plain import PlainKvCache


class GroupKvCache(PlainKvCache):
    """Free blocks, of which the samples of a request share those of its prompt."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        super().__init__(num_blocks=num_blocks, block_size=block_size)
        self._copies: dict[LiveRequest, int] = {}  # taken for samples that are yet to be forked
        # Samples that hold the shared blocks, and how many these are.
        self._shared: dict[SampleGroup, tuple[int, int]] = {}

    def num_copies(self, live: LiveRequest) -> int:
        """Returns the blocks that its samples take beyond those of the prompt."""
        return len(live.siblings) if live.num_tokens % self.block_size else 0

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Takes the blocks of the first `num_tokens` tokens, and those that its samples will copy to."""
        super().admit(live, hit, num_tokens)
        if copies := self.num_copies(live):
            self.take(copies)
            self._copies[live] = copies

    def fork(self, live: LiveRequest) -> None:
        """Lets the samples of a request whose prompt is computed share it from now on."""
        assert live.group is not None, "only samples have siblings"
        self._copies.pop(live, None)
        full = live.num_computed // self.block_size
        for sample in (live, *live.siblings):
            sample.num_shared_blocks = full
        self._shared[live.group] = (1 + len(live.siblings), full)

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the sample's own blocks, and the shared ones with the last that holds them."""
        super().release(live, is_finished=is_finished)
        self.num_free += self._copies.pop(live, 0) - live.num_shared_blocks
        if live.num_shared_blocks and live.group is not None:
            live.num_shared_blocks = 0
            num_holders, full = self._shared.pop(live.group)
            if num_holders > 1:
                self._shared[live.group] = (num_holders - 1, full)
            else:
                self.num_free += full

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        own = sum(
            num_blocks_for(computed, self.block_size) - live.num_shared_blocks for live, computed in holders
        )
        shared = sum(full for num_holders, full in self._shared.values() if num_holders)
        held = own + shared + sum(self._copies.values())
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")
