"""Static batching: padded batches that run until their last request has ended, as `generate` runs them.

A batch takes requests from the head of the queue. All its prompts are padded to the longest; every step
computes a row for every request, whether it still needs one or not; nobody joins, and the answers are
returned together when the last one is complete.

Source: Hugging Face transformers, generation/utils.py (left padding, pad tokens for finished rows, the loop
until all are finished). Request-level scheduling is what Orca (OSDI 2022) section 3 calls it, C1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ....hwmodels.step import Chunk, DecodeGroup
from ..batch import Batch, Computed
from ..decode_set import NO_DECODES
from ..kv.blocks import KvCache, num_blocks_for
from ..live_request import LiveRequest
from .core import SchedulerCore
from .static_spec import StaticSpec

__all__ = ["StaticScheduler", "StaticSpec"]


class StaticScheduler(SchedulerCore):
    """Static batching over any KV cache, of which a batch takes a rectangle: its rows, padded.

    SIMPLIFIED: a batch that would not fit gets fewer rows, where `generate` would run out of memory; effect:
    none for batch sizes that were chosen to fit. SIMPLIFIED: logits of the last position only; effect: up to
    3 % of a prefill too fast for versions before 4.45. The cache counts tokens, not the padding around them.
    """

    knows_time = True
    pads_decodes = True

    def __init__(self, spec: StaticSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(
            kv=kv, max_model_len=max_model_len, block_bytes=block_bytes, max_new_tokens=spec.max_new_tokens
        )
        self._max_batch_size = spec.max_batch_size
        self._delay_s = spec.max_queue_delay_s
        # SIMPLIFIED: concatenation layer by layer takes no more; effect: one layer's share too much room.
        self._num_copies = 2 if spec.cache == "legacy" else 1
        self._queued_at: deque[float] = deque()
        self._num_rows = 0
        self._padded_len = 0
        self._begun_at_tick = 0
        self._ended: list[LiveRequest] = []  # their answers are complete and wait for the others

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees the whole batch."""
        super().finish(finished)
        if finished:
            self._num_rows, self._ended = 0, []

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns the batch if its last request gets its last token."""
        return self._returned(super().advance(num_steps))

    def computed_decodes(self, decodes: DecodeGroup) -> DecodeGroup:
        """Returns a row for each request of the batch, all as long as the longest prompt and its answer."""
        return self._rows(self._tick + 1)

    def _enqueue(self, live: LiveRequest) -> None:
        self._queued_at.append(self.now)
        super()._enqueue(live)

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        return None if self._fits(1, prompt_tokens + num_output_tokens) else "exceeds_kv_cache"

    def _limit(self, live: LiveRequest) -> int:
        # What the cache could never hold is cut off what clients ask for.
        size = self.kv.block_size
        room = self.kv.num_blocks // self._num_copies * size - live.prompt_tokens
        return max(live.num_output_tokens, min(super()._limit(live), room))

    def _fits(self, num_rows: int, num_slots: int) -> bool:
        needed = num_rows * num_blocks_for(num_slots, self.kv.block_size)
        return needed * self._num_copies <= self.kv.num_blocks

    def _compose(self) -> bool:
        """Goes on with the batch, or begins the next one when it is full or due."""
        self.due_at = None
        if self._running:
            self._is_blocked = True
            self._fit_decodes(lambda: None)
            return True
        if self._waiting and len(self._waiting) < self._max_batch_size and self._delay_s:
            due_at = self._queued_at[0] + self._delay_s
            if self.now < due_at:
                self.due_at = due_at
                return False
        self._begin()
        return False

    def _begin(self) -> None:
        """Takes requests from the head of the queue until the batch is full or would not fit."""
        longest = answer = 0
        while self._waiting and len(self._running) < self._max_batch_size:
            live = self._waiting[0]
            longest, answer = max(longest, live.prompt_tokens), max(answer, self._limit(live))
            hit = self.kv.lookup(live)
            num_tokens = live.prompt_tokens - hit.num_blocks * self.kv.block_size
            needed = num_blocks_for(num_tokens, self.kv.block_size) + hit.num_free_blocks
            if needed > self.kv.num_free or not self._fits(len(self._running) + 1, longest + answer):
                break
            self._waiting.popleft()
            self._queued_at.popleft()
            self._admit(live, hit, num_tokens)
        self._num_rows, self._begun_at_tick = len(self._running), self._tick
        self._padded_len = max((live.prompt_tokens for live in self._running), default=0)

    def _commit(self, num_decodes: int) -> Batch:
        is_prefill = not num_decodes
        batch = super()._commit(num_decodes)
        batch.finishing = self._returned(batch.finishing)
        if is_prefill and self._padded_len > 1:
            chunks = (Chunk(self._padded_len, 0, self._num_rows),)
            batch.computed = Computed(chunks, NO_DECODES, self._num_rows)
        else:
            batch.computed = Computed((), self._rows(self._tick), self._num_rows)
        return batch

    def _rows(self, tick: int) -> DecodeGroup:
        context = self._padded_len + tick - self._begun_at_tick
        return DecodeGroup(1, self._num_rows, self._num_rows * context, context)

    def _returned(self, ended: Sequence[LiveRequest]) -> Sequence[LiveRequest]:
        """Keeps the answers that are complete, and returns them when they are all."""
        self._ended += ended
        return self._ended if len(self._ended) == self._num_rows else ()
