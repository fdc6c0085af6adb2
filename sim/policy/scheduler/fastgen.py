"""DeepSpeed-FastGen's scheduler: Dynamic SplitFuse, which fills every step to one token budget.

Running requests come first with a token each; prompts, in the order of the buffer, fill the rest exactly:
a long one is split and its rest goes to the head of the buffer, short ones are fused. A prompt begins, and
goes on, only if the blocks of all its remaining tokens are free. A decode that finds no block is left out
of the step. If nothing at all can be scheduled, the last buffered request with KV is flushed: it becomes a
prompt of all its tokens at the tail of the buffer.

Source: DeepSpeed-MII mii/batching/ragged_batching.py, commit d100a854 (behaviour, read 2026-11);
DeepSpeed-FastGen (arXiv 2401.08671) section 3.
"""

from __future__ import annotations

from ..kv.blocks import NO_HIT, KvCache, num_blocks_for
from ..live_request import LiveRequest
from .base import Outlook
from .core import SchedulerCore
from .fastgen_spec import FastGenSpec

__all__ = ["FastGenScheduler", "FastGenSpec"]


class FastGenScheduler(SchedulerCore):
    """DeepSpeed-FastGen's scheduler over a paged KV cache; it never looks for cached prefixes.

    The decodes of `_running` are in the order of the buffer, and at most one prompt is computed in part.
    """

    # SIMPLIFIED: MII frees a finished request's blocks when its client has fetched the answer, a step later;
    # effect: under memory pressure our next prompt may start one step earlier.

    def __init__(self, spec: FastGenSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
        self._budget = spec.max_ragged_batch_size
        self._max_num_seqs = spec.max_num_seqs
        self._max_tracked = spec.max_tracked_sequences
        self._lack_blocks = False  # all who sit out do so for want of a block

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next, though some sit them out while no block is free."""
        if not self._sit_on():
            return super().outlook()
        sitting, self._sitting = self._sitting, []
        ahead = super().outlook()
        self._sitting = sitting
        return ahead

    def _sit_on(self) -> bool:
        """Returns whether those who sat the last step out have nothing to hope for in the next one."""
        return bool(self._sitting) and self._lack_blocks and not self.kv.num_free

    def _join(self) -> None:
        sitting = self._sitting if self._sit_on() else []
        self._sitting = [] if sitting else self._sitting
        super()._join()
        self._sitting = sitting

    def _compose(self) -> bool:
        """Decodes first, then prompts; flushes requests until something can be scheduled."""
        while True:
            had_free_blocks = self.kv.num_free > 0
            self._fit_in_order()
            if had_free_blocks:
                self._fuse_prompts()
            if self._prefills or self._decodes.count:
                break
            if not self._running:
                return False
            self._flush()
            self._join()  # who sat out for want of blocks tries again
        self._is_blocked = not self._prefills
        return True

    def _requeue(self, victim: LiveRequest) -> None:
        self._waiting.append(victim)

    def _fit_in_order(self) -> None:
        """Takes the blocks of the decodes in the order of the buffer; who finds none sits out."""
        decodes, kv, tick = self._decodes, self.kv, self._tick + 1
        if decodes.count > self._max_num_seqs or decodes.blocks_for(tick) > kv.num_free:
            self._leave_out(tick)
        if needed := decodes.blocks_for(tick):
            kv.take(needed)

    def _leave_out(self, tick: int) -> None:
        """Lets those sit out that find no block, or come after as many as a step may hold."""
        num_free = self.kv.num_free
        left_out: list[LiveRequest] = []
        in_order = [live for live in self._running if live.is_decoding]
        for place, live in enumerate(in_order):
            needs_block = self._decodes.begins_block(live, tick)
            if place >= self._max_num_seqs or (needs_block and not num_free):
                left_out.append(live)
            elif needs_block:
                num_free -= 1
        for live in left_out:
            self._sit_out(live)
        self._lack_blocks = len(in_order) <= self._max_num_seqs
        # Those in the step go behind them in the buffer, to its tail.
        self._running = {**dict.fromkeys(self._sitting), **self._running}

    def _fuse_prompts(self) -> None:
        """Fills the budget with prompts: first the one in part, then those in the buffer."""
        kv, waiting = self.kv, self._waiting
        budget, slots = self._budget - self._decodes.count, self._max_num_seqs - self._decodes.count
        if self._prefilling and budget > 0 and slots > 0:
            live = self._prefilling[0]
            left = live.num_tokens - live.num_computed
            if self._blocks_of_chunk(live, left) > kv.num_free:
                return
            self._continue(live, min(left, budget))
            budget, slots = budget - left, slots - 1
        while waiting and budget > 0 and slots > 0 and len(self._running) < self._max_tracked:
            left = waiting[0].num_tokens
            if num_blocks_for(left, kv.block_size) > kv.num_free:
                return
            self._admit(waiting.popleft(), NO_HIT, min(left, budget))
            budget, slots = budget - left, slots - 1

    def _flush(self) -> None:
        """Takes the blocks of the last buffered request away; the prompt in part is at the buffer's head."""
        in_order = [live for live in self._running if live not in self._prefilling]
        self._preempt(in_order[-1] if in_order else self._prefilling[0])
