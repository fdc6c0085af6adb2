"""KsanaLLM's scheduler: decodes, then the swapped, then the waiting; who finds no block swaps itself out.

A decode owns the slot of one token beyond its next one. The first that finds no block for it ends split-fuse,
for good, if prompts in part hold blocks; else it goes to host memory itself, one request at a time, and its
blocks come free in a later call. While a swapped request does not fit, nobody is admitted. Admissions are in
the order of the waiting queue, which takes the longest first of those that arrived together. Prompts are
split per request, not by a shared budget, and steps are charged with whole sequences.

Source: KsanaLLM src/ksana_llm/batch_scheduler/ (strategy/continuous_batching.cpp, batch_scheduler.cpp,
state/batch_state.h), commit c451219c (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from math import ceil

from ...request import Request
from ..decode_set import DecodeSet
from ..kv.blocks import NO_HIT, KvCache
from ..kv.ksana import KsanaKvCache
from ..live_request import LiveRequest
from ..moves import Move
from .base import Outlook
from .core import SchedulerCore
from .ksana_spec import KsanaSpec
from .ksana_swapper import KsanaSwapper
from .swap import BlockCopies

__all__ = ["KsanaScheduler", "KsanaSpec"]

# Source: KsanaLLM src/ksana_llm/batch_manager/schedule_processor.cpp, Schedule: when nothing can run.
_SLEEP_S = 0.100


class KsanaScheduler(SchedulerCore):
    """KsanaLLM's scheduler over any KV cache; only over KsanaLLM's own it swaps and has spare slots.

    _arrived: requests since the last call. _entry: those that the waiting queue has no room for yet. Prompts
    in part keep their places in `_waiting`; the other requests of `_running` are in the order of KsanaLLM's
    decoding queue. _computing: whose prompts the last step computed up to where. _deadlines: until when
    requests must be done [s], in the order of arrival. _asleep_since: when it last found work but nothing to
    run [s]. _is_closed: nobody is admitted in this call.
    """

    knows_time = True

    def __init__(self, spec: KsanaSpec, *, kv: KvCache, max_model_len: int, copies: BlockCopies) -> None:
        super().__init__(kv=kv, max_model_len=min(max_model_len, spec.max_step_tokens))
        self._spec = spec
        self._max_num_seqs = spec.max_num_seqs
        self._split_fuse = spec.split_fuse_token_num
        self._tree = kv if isinstance(kv, KsanaKvCache) else None
        self._num_spare = 0 if self._tree is None else self._tree.num_spare_tokens
        self._decodes = DecodeSet(kv.block_size, self._num_spare)
        factor = spec.block_host_memory_factor
        self._swapper = KsanaSwapper(kv, host_memory_factor=factor, copies=copies)
        self._arrived: list[LiveRequest] = []
        self._entry: list[LiveRequest] = []
        self._computing: list[tuple[LiveRequest, int]] = []
        self._deadlines: OrderedDict[LiveRequest, float] = OrderedDict()
        self._asleep_since: float | None = None
        self._is_closed = False

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission, or in host memory and on the way there and back."""
        num_queued = len(self._arrived) + len(self._entry) + len(self._waiting) - len(self._prefilling)
        return num_queued + self._swapper.num_requests

    def add(self, request: Request) -> str | None:
        """Queues a request unless it can never be served, or too many have arrived since the last call."""
        if len(self._arrived) + request.num_samples > self._spec.max_waiting_queue_len:
            return "waiting_queue_full"
        return super().add(request)

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next; None while it sleeps, and when a timeout is due."""
        is_due = self.due_at is not None and self.now >= self.due_at
        if is_due or self._asleep_since is not None:
            return None
        self._note_computed()
        return super().outlook()

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks."""
        self._note_computed()
        super().finish(finished)
        for live in finished:
            self._deadlines.pop(live, None)

    def moved(self, move: Move) -> bool:
        """Hears that a request's blocks are in host memory, or back: the next call merges them."""
        if not isinstance(move.owner, LiveRequest):
            return super().moved(move)
        self._is_blocked = False
        self._swapper.moved(move.owner)
        return True

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        most = self._blocks(prompt_tokens + num_output_tokens - 1)
        return "exceeds_kv_cache" if most > self.kv.num_blocks else None

    def _enqueue(self, live: LiveRequest) -> None:
        self._arrived.append(live)
        self._deadlines[live] = live.request.arrived_at + self._spec.waiting_timeout_in_ms / 1000

    def _compose(self) -> bool:
        """Decodes, the swapped, the waiting; then sleeps if there is work but nothing to run."""
        if not self._is_awake():
            return False
        self._note_computed()
        self._drop_overdue()
        self._take_in()
        self._is_closed = False
        before = self._standing()
        for live in self._swapper.merge_in():
            self._resume(live)
        self._fit_in_order()
        self._swapper.merge_out()
        if not self._is_closed and self._swapper.going_out is None:
            self._swap_in()
        if not self._is_closed:
            self._admit_waiting()
        self._computing = [(live, context + num_new) for live, num_new, context in self._prefills]
        stays = not self._prefills and self._standing() == before
        self._is_blocked = stays
        self.due_at = next((at for at in self._deadlines.values() if at > self.now), None)
        has_work = bool(self._waiting or self._sitting)
        if has_work and not self._prefills and not self._decodes.count:
            self._asleep_since = self.now
            self.due_at = self._next_look(self.due_at if stays and self.due_at is not None else self.now)
        return True

    def _is_awake(self) -> bool:
        """Returns whether it looks at its queues now: asleep it does so from time to time."""
        if self._asleep_since is None:
            return True
        if self.now > self._asleep_since:  # else its sleep has just begun
            self.due_at = self._next_look(self.now)
            if self.now >= self.due_at:
                self._asleep_since = None
        return self._asleep_since is None

    def _next_look(self, at: float) -> float:
        """Returns when, asleep, it looks first from `at` on [s]: looks before change nothing."""
        assert self._asleep_since is not None, "asleep"
        num_sleeps = max(ceil((at - self._asleep_since) / _SLEEP_S - 1e-9), 1)
        return self._asleep_since + num_sleeps * _SLEEP_S

    def _note_computed(self) -> None:
        """Lets the full blocks of the prompts that the last step computed be found by others."""
        if self._tree is not None:
            self._tree.step = self.step
        for live, num_tokens in self._computing:
            if live in self._running:
                self.kv.computed(live, num_tokens)
        self._computing = []

    def _standing(self) -> tuple[object, ...]:
        """Returns what stays as it is while decodes are all that happens."""
        swapper = self._swapper
        moving = (swapper.going_out, len(swapper.coming_in), len(swapper.swapped))
        return (*moving, self._num_preempted, len(self._rejoined), len(self._sitting))

    def _take_in(self) -> None:
        """Sorts those that arrived together in among those at the entry, and fills the waiting queue."""
        if len(self._arrived) > 1:
            self._entry = sorted((*self._arrived, *self._entry), key=lambda live: -live.prompt_tokens)
        else:
            self._entry += self._arrived
        self._arrived = []
        num_places = max(self._spec.max_batch_size - len(self._waiting), 0)
        self._waiting.extend(self._entry[:num_places])
        del self._entry[:num_places]

    def _fit_in_order(self) -> None:
        """Takes the blocks of the decodes in the order of their queue, making room where there are none."""
        decodes, tick = self._decodes, self._tick + 1
        if decodes.count > self._max_num_seqs or decodes.blocks_for(tick) > self.kv.num_free:
            self._walk_decodes(tick)
        if needed := decodes.blocks_for(tick):
            self.kv.take(needed)

    def _walk_decodes(self, tick: int) -> None:
        kv, num_taken = self.kv, 0
        in_order = [live for live in self._running if live.is_decoding]
        for live in in_order[self._max_num_seqs :]:
            self._sit_out(live)
        for live in in_order[: self._max_num_seqs]:
            if not self._decodes.begins_block(live, tick):
                continue
            if kv.num_free <= num_taken and self._split_fuse and self._waiting:
                self._end_split_fuse()
            if kv.num_free > num_taken:
                num_taken += 1
            elif self._may_preempt():
                self._preempt_or_swap(live)
            else:
                self._sit_out(live)
                self._is_closed = True

    def _end_split_fuse(self) -> None:
        """Takes the blocks of prompts in part away, and never splits a prompt again."""
        self._split_fuse = 0
        for live in [live for live in self._waiting if live in self._prefilling]:
            self._waiting.remove(live)
            self._preempt(live)

    def _may_preempt(self) -> bool:
        """Returns whether another decode would go on, and no blocks are on their way."""
        # SIMPLIFIED: KsanaLLM waits for swap-ins under way, holding up all, before it swaps out; we leave the
        # decode out until they are back; effect: the others do not wait for the rest of a copy.
        return not self._swapper.is_moving and self._decodes.count + len(self._sitting) > 1

    def _preempt_or_swap(self, live: LiveRequest) -> None:
        num_blocks = self._blocks(live.context_base + self._tick)
        if self._spec.preempt_mode == "recompute" or not self._swapper.has_room_for(num_blocks):
            self._preempt(live)
        else:
            self._stop(live)
            self.moves.append(self._swapper.send(live))

    def _swap_in(self) -> None:
        """Brings requests back, the lowest number first, while there are blocks for them and the decodes."""
        num_decoding = self._decodes.count + len(self._sitting)
        threshold = ceil(num_decoding * self._spec.swapin_block_threshold)
        for _, live in sorted(self._swapper.swapped.items()):
            if self._swapper.num_needed(live) + threshold > self.kv.num_free:
                self._is_closed = True
                return
            self.moves.append(self._swapper.fetch(live))

    def _admit_waiting(self) -> None:
        """Gives prompts their next chunks in the order of the queue, up to the first that does not fit."""
        waiting, kv, size = self._waiting, self.kv, self.kv.block_size
        num_requests = num_tokens = num_gated = self._decodes.count
        place = 0
        while place < len(waiting) and num_requests < self._max_num_seqs:
            live = waiting[place]
            is_new = live not in self._running
            hit = kv.lookup(live) if is_new else NO_HIT
            context = hit.num_blocks * size if is_new else live.num_computed
            left = live.num_tokens - context
            end = context + (min(left, self._split_fuse) if self._split_fuse else left)
            needed = self._blocks(end) - (hit.num_blocks if is_new else self._blocks(context))
            gate = ceil(num_gated * self._spec.launch_block_threshold)
            has_tokens = num_tokens + end <= self._spec.max_step_tokens
            if not has_tokens or needed + gate > kv.num_free - hit.num_free_blocks:
                return
            # The gate counts the requests before the last admitted one.
            num_gated, num_requests, num_tokens = num_requests, num_requests + 1, num_tokens + end
            if is_new:
                self._admit(live, hit, end - context)
            else:
                self._continue(live, end - context)
            if end == context:  # its whole prompt is cached: the last token is computed again
                self._prefills[-1] = (live, 1, end - 1)
            if end < live.num_tokens:
                place += 1
            else:
                del waiting[place]
                self._running[live] = self._running.pop(live)  # to the tail of the decoding queue

    def _continue(self, live: LiveRequest, num_tokens: int) -> None:
        context = live.num_computed
        live.num_computed = end = context + num_tokens
        self.kv.take(self._blocks(end) - self._blocks(context))
        self._prefills.append((live, num_tokens, context))

    def _blocks(self, num_tokens: int) -> int:
        """Returns the blocks of a request with so many tokens in the cache."""
        return -(-(num_tokens + self._num_spare) // self.kv.block_size)

    def _drop_overdue(self) -> None:
        """Drops the requests that are not done in time, but for those whose blocks are on their way."""
        swapper = self._swapper
        for live, _ in list(takewhile(lambda item: item[1] <= self.now, self._deadlines.items())):
            if live is not swapper.going_out and live not in swapper.coming_in:
                self._drop(live)

    def _drop(self, live: LiveRequest) -> None:
        del self._deadlines[live]
        if live.group is None or live.group.ended(live):
            self.dropped.append((live.request._replace(index=live.index), "waiting_timeout"))
        self._swapper.drop(live)
        for queue in (self._arrived, self._entry, self._waiting):
            if live in queue:
                queue.remove(live)
        if live in self._running:
            self._withdraw(live)
            self.kv.release(live, is_finished=True)
