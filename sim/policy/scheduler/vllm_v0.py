"""vLLM V0's scheduler: a step is prompts or decodes, swapping where recomputing won't do.

By default whole prompts come first: as long as any can be admitted, steps hold prompts alone and decodes
wait. Else all decodes take part. Each of them needs a free block at its turn, used or not; where there is
none the newest running request is preempted: its blocks are recomputed later, as a prompt at the head of the
queue, or swapped to host memory, from which it comes back before any prompt is admitted. Copies go before the
step. With chunked prefill decodes come first, and prompts, in part, fill the budget that they leave.

Source: vLLM vllm/core/scheduler.py (commit 0dce2b29, of v0.6) and block_manager.py (commit 006a839f), read
2026-11.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...request import Request
from ..kv.beam_cache import BeamKvCache
from ..kv.blocks import NO_HIT, KvCache, num_blocks_for
from ..kv.group import GroupKvCache
from ..live_request import LiveRequest
from ..moves import When
from .base import Outlook
from .core import SchedulerCore
from .swap import BlockCopies, SwapSpace
from .vllm_v0_spec import VllmV0Spec

__all__ = ["VllmV0Scheduler", "VllmV0Spec"]

_GIB = 2**30


class VllmV0Scheduler(SchedulerCore):
    """vLLM V0's scheduler over any KV cache.

    _swapped: requests whose KV is in host memory, in the order in which they were swapped out.
    """

    def __init__(self, spec: VllmV0Spec, *, kv: KvCache, max_model_len: int, copies: BlockCopies) -> None:
        super().__init__(kv=kv, max_model_len=max_model_len)
        self._is_chunked = spec.enable_chunked_prefill
        # vLLM refuses to start with whole prompts unless max_num_batched_tokens covers max_model_len.
        whole = 0 if self._is_chunked else max_model_len
        self._budget = max(spec.max_num_batched_tokens, whole)
        self._max_num_seqs = spec.max_num_seqs
        self._mode = spec.preemption_mode
        # vLLM takes the share of all blocks, its null block included.
        self._watermark_blocks = int(spec.watermark * (kv.num_blocks + 1))
        space = int(spec.swap_space * _GIB * copies.num_gpus)
        # Source: vLLM csrc/cache_kernels.cu, swap_blocks, called per layer: one copy of keys, one of values.
        self.host = SwapSpace(
            space // copies.num_bytes if copies.num_bytes else 0,
            block_bytes=copies.num_bytes,
            pieces_per_block=2 * copies.num_layers * copies.num_gpus,
        )
        self._swapped: deque[LiveRequest] = deque()
        self._preempted: list[LiveRequest] = []  # in this step

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission, or in host memory to come back."""
        return len(self._waiting) + len(self._swapped)

    def add(self, request: Request) -> str | None:
        """Queues a request unless it, or its samples together, can never be served."""
        kv = self.kv
        num_sequences = request.beam_width or request.num_samples
        if num_sequences > 1 and isinstance(kv, GroupKvCache):
            if num_sequences > self._max_num_seqs:
                return "exceeds_max_num_seqs"
            begun = num_blocks_for(request.prompt_tokens, kv.block_size) + num_sequences - 1
            if begun + self._watermark_blocks > kv.num_blocks:
                return "exceeds_kv_cache"
        return super().add(request)

    def can_advance(self) -> bool:
        """Returns whether there are decodes and each finds a free block."""
        return self._decodes.count > 0 and self._decodes.blocks_for(self._tick + 1) < self.kv.num_free

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        super().check()
        self.host.check()

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        # vLLM gives up a request that grows into the watermark.
        # SIMPLIFIED: it is refused at the door; effect: none on others but for the time it would have taken.
        most = num_blocks_for(prompt_tokens + num_output_tokens - 1, self.kv.block_size)
        return "exceeds_kv_cache" if most + max(self._watermark_blocks, 1) > self.kv.num_blocks else None

    def _requeue(self, victim: LiveRequest) -> None:
        self._preempted.append(victim)

    def _ahead(self) -> Outlook | None:
        if self._num_beams:
            return None  # who survives is drawn step by step
        num_free = self.kv.num_free - 1  # the last decode of a step needs one at its turn, used or not
        return self._decodes.ahead(self._tick, num_free) if num_free >= 0 else None

    def _compose(self) -> bool:
        num_resumed = len(self._rejoined)
        has_decodes = self._mix() if self._is_chunked else self._alternate()
        self._waiting.extendleft(self._preempted)
        self._preempted = []
        has_changed = self._prefills or self._num_preempted or len(self._rejoined) > num_resumed
        self._is_blocked = not has_changed
        return has_decodes

    def _alternate(self) -> bool:
        """Prompts alone if any can be admitted, which waits for the swapped; else decodes alone."""
        if not self._swapped:
            self._admit_prompts(self._budget)
            if self._prefills:
                return False
        if not self._fit_running():
            for live in self._swap_in(self._budget - self._decodes.count):
                self._resume(live)
        return True

    def _mix(self) -> bool:
        """Decodes, the prompt in part, the swapped, then new prompts, within one budget."""
        has_preempted = self._fit_running()
        budget = self._budget - self._decodes.count
        if self._prefilling and budget:
            live = self._prefilling[0]
            num_tokens = min(live.num_tokens - live.num_computed, budget)
            self._continue(live, num_tokens)
            budget -= num_tokens
        if not has_preempted:
            back = self._swap_in(budget)
            for live in back:
                self._resume(live)
            # vLLM puts them before the others here, and behind them without chunked prefill.
            self._running = {**dict.fromkeys(back), **self._running}
            budget -= len(back)
        self._admit_prompts(budget)
        return True

    @property
    def _num_free(self) -> int:
        """Free blocks beside those of the prompt in part, which has the blocks of all its tokens.

        Beams need one each, whether they copy a block or not.
        """
        size = self.kv.block_size
        live = self._prefilling[0] if self._prefilling else None
        num_free = self.kv.num_free - self._num_beams
        if live is None:
            return num_free
        held = num_blocks_for(live.num_computed, size)
        return num_free - (num_blocks_for(live.num_tokens, size) - held)

    def _admit_prompts(self, budget: int) -> None:
        """Admits from the head of the queue while budget, slots and blocks last; never out of turn."""
        kv, waiting = self.kv, self._waiting
        while waiting and budget > 0:
            live = waiting[0]
            if self._num_sequences() + len(live.siblings) >= self._max_num_seqs:
                return
            num_all = live.num_tokens
            # vLLM asks for the blocks of the whole prompt, without those that a prefix hit shares.
            copies = kv.num_copies(live) if isinstance(kv, GroupKvCache) else 0
            if num_blocks_for(num_all, kv.block_size) + copies + self._watermark_blocks > self._num_free:
                return
            hit = kv.lookup(live)
            left = num_all - hit.num_blocks * kv.block_size
            # Without chunks the budget counts cached tokens, too, though they are not computed.
            num_charged = left if self._is_chunked else num_all
            if num_charged > budget and not self._is_chunked:
                return
            self._admit(waiting.popleft(), hit, min(left, budget))
            budget -= num_charged

    @property
    def _num_beams(self) -> int:
        return self.kv.num_beams if isinstance(self.kv, BeamKvCache) else 0

    def _num_sequences(self) -> int:
        """Returns the sequences that run, those included that begin when their prompts are computed."""
        begun = {live for live, _, _ in self._prefills}.union(self._prefilling)
        return len(self._running) + sum(len(live.siblings) for live in begun)

    def _fit_running(self) -> bool:
        """Takes the blocks of all decodes, preempting until each finds one; returns whether it had to."""
        decodes, tick, num_preempted = self._decodes, self._tick + 1, self._num_preempted
        if decodes.blocks_for(tick) >= self._num_free:
            self._make_room(tick)
        if needed := decodes.blocks_for(tick):
            self.kv.take(needed)
        if isinstance(self.kv, BeamKvCache):
            self.kv.search()
        return self._num_preempted > num_preempted

    def _make_room(self, tick: int) -> None:
        """Preempts from the end of the running queue whenever the next in it finds no free block."""
        queue, num_taken = deque(self._running), 0
        while queue:
            live = queue.popleft()
            while self._num_free - num_taken < 1:
                victim = queue.pop() if queue else live
                self._preempt_or_swap(victim)
                if victim is live:
                    break
            else:
                num_taken += live.is_decoding and self._decodes.begins_block(live, tick)

    def _preempt_or_swap(self, victim: LiveRequest) -> None:
        request = victim.request
        is_group = max(request.num_samples, request.beam_width) > 1
        wants_swap = self._mode == "swap" or (self._mode == "auto" and is_group)
        # SIMPLIFIED: a prompt in part is recomputed in any case; effect: none unless preemption_mode is swap
        # with chunked prefill.
        if not wants_swap or not victim.is_decoding or not self._swap_out(victim):
            self._preempt(victim)

    def _swap_out(self, victim: LiveRequest) -> bool:
        """Moves a decode's blocks to host memory before the step; returns False if there is no room."""
        num_computed = victim.context_base + self._tick
        num_blocks = num_blocks_for(num_computed, self.kv.block_size)
        # SIMPLIFIED: vLLM stops when its swap space is full, we recompute; effect: the run goes on.
        if num_blocks > self.host.num_free:
            return False
        self._stop(victim)
        self.kv.release(victim, is_finished=False)
        self.moves.append(self.host.take(victim, num_blocks, When.BEFORE))
        self._swapped.append(victim)
        return True

    def _swap_in(self, budget: int) -> Sequence[LiveRequest]:
        """Brings requests back, before the step, while budget, slots and blocks last; returns them."""
        back: list[LiveRequest] = []
        while self._swapped and len(back) < budget:
            live = self._swapped[0]
            needed = num_blocks_for(live.num_computed + 1, self.kv.block_size)
            has_slot = len(self._running) + len(back) < self._max_num_seqs
            if not has_slot or needed + self._watermark_blocks > self._num_free:
                break
            self.kv.admit(live, NO_HIT, live.num_computed + 1)
            self.moves.append(self.host.bring_back(live, When.BEFORE))
            self.host.release(live)
            back.append(self._swapped.popleft())
        return back
