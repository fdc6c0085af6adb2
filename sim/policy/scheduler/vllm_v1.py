"""vLLM V1's scheduler: one token budget, running requests before waiting ones, preemption by recompute.

There are no phases. Each step gives running requests, in the order of their admission, the tokens they
lack (a decode lacks one), then admits from the waiting queue while budget, slots and blocks last. When a
running request finds no block, the newest running one is preempted: it loses its blocks, goes to the head
of the waiting queue and later computes everything again.

Source: vLLM vllm/v1/core/sched/scheduler.py and async_scheduler.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ....hot_modules import mypyc_attr
from ....hwmodels.step import Chunk, DecodeGroup
from ...request import Request
from ..batch import Batch
from ..kv.blocks import KvCache, PrefixHit, num_blocks_for
from ..kv.window import decode_set_for
from ..live_request import LiveRequest
from ..moves import Move, moves_of
from ..samples import live_requests
from .aside import preempting_in_time, set_aside_by
from .base import Outlook
from .chunk_plan import Prefill, share_budget
from .vllm_v1_spec import VllmV1Spec

__all__ = ["VllmV1Scheduler", "VllmV1Spec"]

_Requests = Sequence[LiveRequest]

_new = tuple.__new__  # named tuples without the Python call of their own constructors


@mypyc_attr(allow_interpreted_subclasses=True)
class VllmV1Scheduler:
    """vLLM V1's scheduler over any KV cache."""

    def __init__(self, spec: VllmV1Spec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        self.kv = kv
        self.moves = moves_of(kv)
        self.knows_time = False
        self.pads_decodes = False
        self.now = 0.0
        self.due_at: float | None = None
        self.dropped: list[tuple[Request, str]] = []
        self._budget = spec.max_num_batched_tokens
        self._max_num_seqs = spec.max_num_seqs
        self._is_chunked = spec.enable_chunked_prefill
        self._threshold = spec.long_prefill_token_threshold
        self._reserves_all = spec.scheduler_reserve_full_isl
        # vLLM takes the share of all blocks, its null block included.
        self._watermark_blocks = int(spec.watermark * (kv.num_blocks + 1))
        self._max_model_len = max_model_len
        # vLLM refuses to start with whole prompts unless max_num_batched_tokens covers max_model_len.
        is_split = self._is_chunked or (self._threshold or max_model_len) <= self._budget
        longest_prefill = max_model_len if is_split else self._budget
        self._most_tokens = min(longest_prefill, kv.num_blocks * kv.block_size)
        self.step = 0
        self._waiting: deque[LiveRequest] = deque()
        # None without tiers.
        self._aside = set_aside_by(kv, self._waiting, depth=2 if spec.async_scheduling else 1)
        self._running: dict[LiveRequest, None] = {}  # in the order of admission
        self._prefilling: list[LiveRequest] = []
        self._joining: list[LiveRequest] = []  # their prefill ended in the step scheduled last
        self._stalled: list[LiveRequest] = []  # decodes that the budget did not reach
        self._paused: list[LiveRequest] = []  # decodes that dropped out since the last step
        self._num_preempted = 0  # since the last step
        self._decodes = decode_set_for(kv)
        self._is_blocked = False  # the head of the queue finds no slot or no blocks

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission, those set aside included."""
        return len(self._waiting) if self._aside is None else len(self._waiting) + len(self._aside)

    def add(self, request: Request) -> str | None:
        """Queues a request unless it can never be served; its answer ends at the context limit."""
        prompt_tokens = request.prompt_tokens
        room = self._max_model_len - prompt_tokens
        if room < 1:
            return "prompt_exceeds_max_model_len"
        num_output_tokens = min(request.output_tokens, room)
        # The last token is sampled, but its KV is never computed.
        longest = prompt_tokens + num_output_tokens - 1
        if longest > self._most_tokens:
            kv = self.kv
            fits = longest <= kv.num_blocks * kv.block_size
            return "exceeds_token_budget" if fits else "exceeds_kv_cache"
        if request.num_samples == 1:
            self._waiting.append(LiveRequest(request, num_output_tokens))
        else:
            self._waiting.extend(live_requests(request, num_output_tokens))
        if self._aside is not None:
            self._aside.arrived(self._waiting[-1])
        self._is_blocked = False
        return None

    def schedule(self) -> Batch | None:
        """Decides the next step: running requests first, then admissions unless someone was preempted."""
        step, decodes, kv = self.step + 1, self._decodes, self.kv
        rejoined: _Requests = ()
        if self._stalled:
            rejoined, self._stalled = self._stalled, []
        if self._joining or rejoined:
            for live in (*self._joining, *rejoined):
                decodes.join(live, step)
            self._joining = []
        self._is_blocked = False
        prefills = self._plan_chunks(step) if self._prefilling else []
        has_preempted = False
        needed = decodes.blocks_for(step)
        if prefills or needed > kv.num_free:
            has_preempted = self._allocate_running(step, prefills)
        elif needed:
            kv.take(needed)
        aside = self._aside
        if aside is not None and aside.is_watching:
            aside.look()
        admitted: _Requests = ()
        if self._waiting and not has_preempted:
            admitted = self._admit(prefills)
        if not prefills and not decodes.count:
            if aside is None or not aside.return_all():
                return None
            admitted = self._admit(prefills)
            if not prefills:
                return None
        self.step = step
        return self._commit(prefills, rejoined, admitted)

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next, None while someone prefills or may be admitted."""
        if (self._waiting and not self._is_blocked) or self._prefilling or self._stalled:
            return None
        if self._aside is not None and self._aside.is_watching:
            return None
        decodes, step = self._decodes, self.step
        if self._joining:
            for live in self._joining:
                decodes.join(live, step + 1)
            self._joining = []
        ahead, num_free = decodes.ahead(step, self.kv.num_free), self.kv.num_free
        return ahead if self._aside is None else preempting_in_time(ahead, decodes, step, num_free)

    def decodes(self) -> DecodeGroup:
        """Returns the decodes that the next step would hold."""
        return self._decodes.group(self.step + 1)

    def computed_decodes(self, decodes: DecodeGroup) -> DecodeGroup:
        """Returns these decodes: nothing is padded."""
        return decodes

    def can_advance(self) -> bool:
        """Returns whether there are decodes and the blocks suffice for one more step of them."""
        decodes = self._decodes
        return decodes.count > 0 and decodes.blocks_for(self.step + 1) <= self.kv.num_free

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        decodes, step = self._decodes, self.step
        num_blocks = decodes.blocks_for_steps(step + 1, num_steps)
        if num_blocks:
            self.kv.take(num_blocks)
        self.step = step = step + num_steps
        return decodes.pop_final(step) if decodes.next_final == step else ()

    def block_growth(self) -> tuple[int, ...]:
        """Returns the blocks that each coming step takes while only today's decodes go on."""
        return self._decodes.growth(self.step + 1)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks; who was preempted after the last token has none any more."""
        self._is_blocked = False
        for live in finished:
            if self._running.pop(live, self) is not self:
                self.kv.release(live, is_finished=True)

    def moved(self, move: Move) -> bool:
        """Hears that a move has ended; returns whether the next step may differ because of it."""
        if self._aside is None:
            return False
        # What has come into a tier may be loaded by who waits, and need fewer blocks at once.
        may_differ = self._aside.moved(move) or bool(self._waiting)
        self._is_blocked = self._is_blocked and not may_differ
        return may_differ

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        step = self.step
        self.kv.check(
            (live, live.context_base + step if live.is_decoding else live.num_computed)
            for live in self._running
        )

    def _plan_chunks(self, step: int) -> list[Prefill]:
        """Shares the budget among running requests and returns the prefills' chunks."""
        running, prefilling = self._running, self._prefilling
        prefills, self._stalled = share_budget(
            running,
            prefilling,
            num_decodes=self._decodes.count,
            budget=self._budget,
            threshold=self._threshold,
            is_newest=next(reversed(running)) is prefilling[0],
        )
        for live in self._stalled:
            self._decodes.leave(live, step)
        self._paused += self._stalled
        return prefills

    def _allocate_running(self, step: int, prefills: list[Prefill]) -> bool:
        """Takes the blocks of the running requests; returns whether it had to preempt the newest ones."""
        decodes, kv = self._decodes, self.kv
        num_preempted = self._num_preempted
        while True:
            needed = decodes.blocks_for(step)
            for _, num_tokens, context in prefills:
                size = kv.block_size
                needed += num_blocks_for(context + num_tokens, size) - num_blocks_for(context, size)
            if needed <= kv.num_free:
                break
            self._preempt(step, prefills)
        if needed:
            kv.take(needed)
        for live, num_tokens, context in prefills:
            live.num_computed = context + num_tokens
            kv.computed(live, live.num_computed)
        return self._num_preempted > num_preempted

    def _preempt(self, step: int, prefills: list[Prefill]) -> None:
        victim, _ = self._running.popitem()
        victim.num_preemptions += 1
        self._num_preempted += 1
        if victim.is_decoding:
            self._decodes.leave(victim, step)
            self._paused.append(victim)
        elif victim in self._stalled:
            self._stalled.remove(victim)
        elif victim in self._prefilling:
            self._prefilling.remove(victim)
            prefills[:] = [prefill for prefill in prefills if prefill[0] is not victim]
        self.kv.release(victim, is_finished=False)
        victim.num_lost_tokens = max(victim.num_lost_tokens, victim.num_computed)
        victim.num_computed = 0
        if victim.num_sampled < victim.num_output_tokens:
            # Otherwise its last token is on its way: it ends without ever running again.
            self._waiting.appendleft(victim)

    def _admit(self, prefills: list[Prefill]) -> list[LiveRequest]:
        """Admits from the head of the queue while budget, slots and blocks last; never out of turn."""
        kv, waiting, running, threshold = self.kv, self._waiting, self._running, self._threshold
        size = kv.block_size
        admitted: list[LiveRequest] = []
        budget, slots = self._budget - self._decodes.count, self._max_num_seqs - len(running)
        for _, num_tokens, _ in prefills:
            budget -= num_tokens
        while waiting and budget > 0 and slots > 0:
            live = waiting[0]
            hit = kv.lookup(live)
            if hit.load is not None and hit.load.is_waiting:
                if self._sets_aside(hit):
                    continue
                break
            num_hit_blocks = hit.num_blocks
            context, all_tokens = num_hit_blocks * size, live.prompt_tokens + live.num_sampled
            num_tokens = all_tokens - context
            if threshold and num_tokens > threshold:
                num_tokens = threshold
            if num_tokens > budget:
                if not self._is_chunked:
                    break
                num_tokens = budget
            computed = context + num_tokens
            gate = all_tokens if self._reserves_all else computed
            needed = -(-gate // size) - num_hit_blocks + hit.num_free_blocks
            if needed + (self._watermark_blocks if running else 0) > kv.num_free:
                if not running and self._aside is not None and self._aside.make_room():
                    continue
                self._is_blocked = True
                break
            kv.admit(live, hit, computed)
            if context or live.num_preemptions:
                live.note_hit(context)
            live.num_computed = computed
            running[live] = None
            prefills.append((live, num_tokens, context))
            admitted.append(waiting.popleft())
            budget -= num_tokens
            slots -= 1
        if not slots:
            self._is_blocked = True
        return admitted

    def _sets_aside(self, hit: PrefixHit) -> bool:
        """Sets the head of the queue aside until its KV is there, or makes room; False for want of blocks."""
        assert self._aside is not None, "only tiers have something to load"
        watermark_blocks = self._watermark_blocks if self._running else 0
        if self._aside.put(hit, reserves_all=self._reserves_all, watermark_blocks=watermark_blocks):
            return True
        if not self._running and self._aside.make_room():
            return True
        self._is_blocked = True
        return False

    def _commit(self, prefills: list[Prefill], rejoined: _Requests, admitted: _Requests) -> Batch:
        decodes, step, kv = self._decodes, self.step, self.kv
        num_decodes, group = decodes.count, decodes.group(step)
        finishing = decodes.pop_final(step) if decodes.next_final == step else []
        num_tokens, chunks, ones, completing = num_decodes, [], [], []
        for live, size, context in prefills:
            num_tokens += size
            if size > 1:
                chunks.append(_new(Chunk, (size, context, 1)))
            else:
                ones.append(context + 1)
            sampled = live.num_sampled
            if context + size == live.prompt_tokens + sampled:
                completing.append(live)
                live.num_sampled = sampled = sampled + 1
                if sampled == live.num_output_tokens:
                    finishing.append(live)
                else:
                    self._joining.append(live)
        if ones:
            _, count, sum_context, max_context = group
            group = DecodeGroup(1, count + len(ones), sum_context + sum(ones), max(max_context, *ones))
        if self._prefilling or len(completing) < len(prefills):
            done = dict.fromkeys(completing)
            self._prefilling = [live for live in (*self._prefilling, *admitted) if live not in done]
        paused: _Requests = ()
        num_preempted, self._num_preempted = self._num_preempted, 0
        if self._paused:
            paused, self._paused = self._paused, []
        return Batch(
            step,
            tuple(chunks),
            group,
            num_tokens,
            num_decodes + len(completing),
            num_decodes - len(rejoined),
            len(self._running),
            len(self._waiting) if self._aside is None else self.num_waiting,
            num_preempted,
            kv.num_blocks - kv.num_free,
            completing,
            finishing,
            paused,
            rejoined,
            admitted,
        )
