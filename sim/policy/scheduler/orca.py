"""Orca's scheduler: iteration-level batching by arrival, whole prompts, memory reserved for whole answers.

Each iteration runs every admitted request: prompts whole, beside the others' single tokens. Requests are
admitted in the order of arrival as long as the batch has a row and the cache has slots for the longest
answer that the reservation foresees; nobody is ever preempted, and the first that does not fit holds up all
behind it.

Source: Orca (OSDI 2022) section 4.2, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kv.blocks import KvCache, num_blocks_for
from ..kv.contiguous import reserved_slots
from ..live_request import LiveRequest
from .core import SchedulerCore
from .orca_spec import OrcaSpec

__all__ = ["OrcaScheduler", "OrcaSpec"]


class OrcaScheduler(SchedulerCore):
    """Orca's scheduler over any KV cache; it counts reserved slots itself, wherever they lie."""

    def __init__(self, spec: OrcaSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
        self._max_batch_size = spec.max_batch_size
        self._reservation = spec.reservation
        self._reserved: dict[LiveRequest, int] = {}
        self._num_reserved = 0  # blocks; the paper's n_rsrv

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots, blocks and what was reserved."""
        super().finish(finished)
        for live in finished:
            self._num_reserved -= self._reserved.pop(live)

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        needed = self._blocks(prompt_tokens, num_output_tokens)
        return "exceeds_kv_cache" if needed > self.kv.num_blocks else None

    def _compose(self) -> bool:
        """Admits by arrival; whoever runs takes part."""
        while self._waiting and len(self._running) < self._max_batch_size:
            if not self._select(self._waiting[0]):
                break
        self._is_blocked = bool(self._waiting)
        self._fit_decodes(lambda: None)
        return True

    def _select(self, live: LiveRequest) -> bool:
        """Admits the head of the queue if its reservation fits; returns whether it did."""
        kv = self.kv
        num_reserved = self._blocks(live.prompt_tokens, live.num_output_tokens)
        if self._num_reserved + num_reserved > kv.num_blocks:
            return False
        hit = kv.lookup(live)
        needed = num_blocks_for(live.num_tokens, kv.block_size) - hit.num_blocks + hit.num_free_blocks
        if needed > kv.num_free:
            return False  # there are slots enough, but not in one piece
        self._waiting.popleft()
        self._reserved[live] = num_reserved
        self._num_reserved += num_reserved
        self._admit(live, hit, live.num_tokens - hit.num_blocks * kv.block_size)
        return True

    def _blocks(self, prompt_tokens: int, num_output_tokens: int) -> int:
        slots = reserved_slots(self._reservation, prompt_tokens, num_output_tokens, self._max_model_len)
        return num_blocks_for(int(slots), self.kv.block_size)
