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
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from ....hwmodels.step import Chunk, DecodeGroup
from ...request import Request
from ...spec import Spec
from ..batch import Batch
from ..decode_set import DecodeSet
from ..kv.blocks import KvCache, num_blocks_for
from ..live_request import LiveRequest
from .base import Outlook


class VllmV1Spec(Spec):
    """vLLM V1's scheduler settings, by vLLM's names and with its defaults for large GPUs."""

    kind: Literal["vllm_v1"] = "vllm_v1"
    max_num_batched_tokens: int = Field(8192, ge=1, description="Token budget of one step.")
    max_num_seqs: int = Field(1024, ge=1, description="Requests that may run at once.")
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )
    enable_chunked_prefill: bool = Field(True, description="Split prompts over steps.")
    long_prefill_token_threshold: int = Field(
        0, ge=0, description="Most tokens of one prompt in one step; 0 for no limit."
    )
    scheduler_reserve_full_isl: bool = Field(
        True, description="Admit a request only if its whole current sequence fits into the free blocks."
    )
    watermark: float = Field(
        0.0, ge=0, lt=1, description="Share of blocks that admissions leave free while others run."
    )
    async_scheduling: bool = Field(
        True, description="Schedule a step while the one before runs: two steps in flight."
    )

    @model_validator(mode="after")
    def _budget_covers_decodes(self) -> VllmV1Spec:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), so that every running request can decode in every step"
            )
        return self


class _Prefill(NamedTuple):
    """A chunk of this step: `num_tokens` of `live` after `context` computed ones."""

    live: LiveRequest
    num_tokens: int
    context: int


class VllmV1Scheduler:
    """vLLM V1's scheduler over any KV cache."""

    def __init__(self, spec: VllmV1Spec, *, kv: KvCache, max_model_len: int) -> None:
        self.kv = kv
        self._spec = spec
        self._max_model_len = max_model_len
        # vLLM takes the share of all blocks, its null block included.
        chunk_limit = spec.long_prefill_token_threshold or max_model_len
        is_split = spec.enable_chunked_prefill or chunk_limit <= spec.max_num_batched_tokens
        # vLLM refuses to start with whole prompts unless max_num_batched_tokens covers max_model_len.
        self._longest_prefill = max_model_len if is_split else spec.max_num_batched_tokens
        # vLLM takes the share of all blocks, the null block included.
        self._watermark_blocks = int(spec.watermark * (kv.num_blocks + 1))
        self.step = 0
        self._waiting: deque[LiveRequest] = deque()
        self._running: dict[LiveRequest, None] = {}  # in the order of admission
        self._prefilling: list[LiveRequest] = []
        self._joining: list[LiveRequest] = []  # their prefill ended in the step scheduled last
        self._stalled: list[LiveRequest] = []  # decodes that the budget did not reach
        self._paused: list[LiveRequest] = []  # decodes that dropped out since the last step
        self._num_preempted = 0  # since the last step
        self._decodes = DecodeSet(kv.block_size)
        self._is_blocked = False  # the head of the queue finds no slot or no blocks

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission."""
        return len(self._waiting)

    def add(self, request: Request) -> str | None:
        """Queues a request unless it can never be served; its answer ends at the context limit."""
        prompt_tokens = request.prompt_tokens
        room = self._max_model_len - prompt_tokens
        if room < 1:
            return "prompt_exceeds_max_model_len"
        num_output_tokens = min(request.output_tokens, room)
        # The last token is sampled, but its KV is never computed.
        longest = prompt_tokens + num_output_tokens - 1
        if longest > self.kv.num_blocks * self.kv.block_size:
            return "exceeds_kv_cache"
        if longest > self._longest_prefill:
            return "exceeds_token_budget"
        self._waiting.append(LiveRequest(request, num_output_tokens))
        self._is_blocked = False
        return None

    def schedule(self) -> Batch | None:
        """Decides the next step: running requests first, then admissions unless someone was preempted."""
        step, decodes = self.step + 1, self._decodes
        rejoined = self._stalled
        for live in self._joining:
            decodes.join(live, step)
        for live in rejoined:
            decodes.join(live, step)
        self._joining, self._stalled = [], []
        self._is_blocked = False
        prefills = self._plan_chunks(step) if self._prefilling else []
        has_preempted = self._allocate_running(step, prefills)
        admitted: list[LiveRequest] = []
        if self._waiting and not has_preempted:
            admitted = self._admit(prefills)
        if not prefills and not decodes.count:
            return None
        self.step = step
        return self._commit(prefills, rejoined, admitted)

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next, None while someone prefills or may be admitted."""
        if self._prefilling or self._stalled or (self._waiting and not self._is_blocked):
            return None
        decodes, first = self._decodes, self.step + 1
        for live in self._joining:
            decodes.join(live, first)
        self._joining = []
        if not decodes.count:
            return None
        until_final = decodes.next_final_step() - first + 1
        num_steps = decodes.steps_within(first, self.kv.num_free, until_final)
        if not num_steps:
            return None
        ends_with_last_token = num_steps == until_final
        group = decodes.group(first)
        return Outlook(num_steps, group, ends_with_last_token, len(self._running), len(self._waiting))

    def decodes(self) -> DecodeGroup:
        """Returns the decodes that the next step would hold."""
        return self._decodes.group(self.step + 1)

    def can_advance(self) -> bool:
        """Returns whether there are decodes and the blocks suffice for one more step of them."""
        decodes = self._decodes
        return decodes.count > 0 and decodes.blocks_for(self.step + 1) <= self.kv.num_free

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        num_blocks = self._decodes.blocks_for_steps(self.step + 1, num_steps)
        if num_blocks:
            self.kv.take(num_blocks)
        self.step += num_steps
        return self._decodes.pop_final(self.step)

    def block_growth(self) -> tuple[int, ...]:
        """Returns the blocks that each coming step takes while only today's decodes go on."""
        needs = self._decodes.block_needs
        first = (self.step + 1) % len(needs)
        return (*needs[first:], *needs[:first])

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks; who was preempted after the last token has none any more."""
        self._is_blocked = False
        for live in finished:
            if self._running.pop(live, self) is not self:
                self.kv.release(live, is_finished=True)

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        step = self.step
        self.kv.check(
            (live, live.context_base + step if live.is_decoding else live.num_computed)
            for live in self._running
        )

    def _plan_chunks(self, step: int) -> list[_Prefill]:
        """Shares the budget among running requests in order and returns the prefills' chunks."""
        budget, threshold = self._spec.max_num_batched_tokens, self._spec.long_prefill_token_threshold
        lacking = [live.num_tokens - live.num_computed for live in self._prefilling]
        wanted = [min(n, threshold) if threshold else n for n in lacking]
        is_last = next(reversed(self._running)) is self._prefilling[0]
        if is_last or self._decodes.count + sum(wanted) <= budget:
            left = budget - self._decodes.count
            sizes = [min(wanted[0], left)] if is_last else wanted
            chunks = zip(self._prefilling, sizes, strict=True)
            return [_Prefill(live, size, live.num_computed) for live, size in chunks if size]
        return self._plan_in_order(dict(zip(self._prefilling, wanted, strict=True)), step)

    def _plan_in_order(self, wanted: dict[LiveRequest, int], step: int) -> list[_Prefill]:
        """Walks the running requests one by one: a chunk before them may use up decodes' budget."""
        budget = self._spec.max_num_batched_tokens
        prefills: list[_Prefill] = []
        for live in self._running:
            size = min(wanted.get(live, 1 if live.is_decoding else 0), budget)
            budget -= size
            if live in wanted and size:
                prefills.append(_Prefill(live, size, live.num_computed))
            elif live.is_decoding and not size:
                self._stalled.append(live)
        for live in self._stalled:
            self._decodes.leave(live, step)
        self._paused += self._stalled
        return prefills

    def _allocate_running(self, step: int, prefills: list[_Prefill]) -> bool:
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

    def _preempt(self, step: int, prefills: list[_Prefill]) -> None:
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
            prefills[:] = [prefill for prefill in prefills if prefill.live is not victim]
        self.kv.release(victim, is_finished=False)
        victim.num_lost_tokens = max(victim.num_lost_tokens, victim.num_computed)
        victim.num_computed = 0
        if victim.num_sampled < victim.num_output_tokens:
            # Otherwise its last token is on its way: it ends without ever running again.
            self._waiting.appendleft(victim)

    def _admit(self, prefills: list[_Prefill]) -> list[LiveRequest]:
        """Admits from the head of the queue while budget, slots and blocks last; never out of turn."""
        spec, kv, waiting, running = self._spec, self.kv, self._waiting, self._running
        threshold, size = spec.long_prefill_token_threshold, kv.block_size
        admitted: list[LiveRequest] = []
        budget = spec.max_num_batched_tokens - self._decodes.count
        for prefill in prefills:
            budget -= prefill.num_tokens
        while waiting and budget > 0 and len(running) < spec.max_num_seqs:
            live = waiting[0]
            hit = kv.lookup(live)
            context, all_tokens = hit.num_blocks * size, live.num_tokens
            num_tokens = all_tokens - context
            if 0 < threshold < num_tokens:
                num_tokens = threshold
            if num_tokens > budget:
                if not spec.enable_chunked_prefill:
                    break
                num_tokens = budget
            computed = context + num_tokens
            gate = all_tokens if spec.scheduler_reserve_full_isl else computed
            reserve = self._watermark_blocks if running else 0
            if -(-gate // size) - hit.num_blocks + hit.num_free_blocks + reserve > kv.num_free:
                self._is_blocked = True
                break
            waiting.popleft()
            kv.admit(live, hit)
            kv.take(-(-computed // size) - hit.num_blocks)
            self._note_hit(live, context)
            live.num_computed = computed
            kv.computed(live, computed)
            running[live] = None
            prefills.append(_Prefill(live, num_tokens, context))
            admitted.append(live)
            budget -= num_tokens
        self._is_blocked |= len(running) == spec.max_num_seqs
        return admitted

    @staticmethod
    def _note_hit(live: LiveRequest, num_cached_tokens: int) -> None:
        if live.num_preemptions:
            live.num_recomputed_tokens += max(live.num_lost_tokens - num_cached_tokens, 0)
            live.num_lost_tokens = 0
        else:
            live.num_cached_tokens = num_cached_tokens

    def _commit(
        self,
        prefills: list[_Prefill],
        rejoined: list[LiveRequest],
        admitted: list[LiveRequest],
    ) -> Batch:
        step, decodes = self.step, self._decodes
        paused, self._paused = self._paused, []
        num_preempted, self._num_preempted = self._num_preempted, 0
        num_continuing = decodes.count - len(rejoined)
        _, num_decodes, sum_context, max_context = decodes.group(step)
        num_tokens = num_decodes
        chunks: list[Chunk] = []
        completing: list[LiveRequest] = []
        for live, size, context in prefills:
            num_tokens += size
            if size > 1:
                chunks.append(Chunk(size, context))
            else:
                num_decodes, sum_context = num_decodes + 1, sum_context + context + 1
                max_context = max(max_context, context + 1)
            if live.num_computed == live.num_tokens:
                completing.append(live)
        finishing = [*decodes.pop_final(step), *self._complete(prefills, completing)]
        return Batch(
            step=step,
            chunks=tuple(chunks),
            decodes=DecodeGroup(1, num_decodes, sum_context, max_context),
            num_tokens=num_tokens,
            num_sampled=num_continuing + len(rejoined) + len(completing),
            num_continuing=num_continuing,
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_preempted=num_preempted,
            kv_blocks_used=self.kv.num_blocks - self.kv.num_free,
            completing=completing,
            finishing=finishing,
            paused=paused,
            rejoined=rejoined,
            admitted=admitted,
        )

    def _complete(self, prefills: list[_Prefill], completing: list[LiveRequest]) -> list[LiveRequest]:
        """Moves requests whose prompt is computed on to decoding; returns those that have all tokens."""
        if not prefills:
            return []
        started = dict.fromkeys(self._prefilling) | {prefill.live: None for prefill in prefills}
        finishing = []
        for live in completing:
            del started[live]
            live.num_sampled += 1
            if live.num_sampled == live.num_output_tokens:
                finishing.append(live)
            else:
                self._joining.append(live)
        self._prefilling = list(started)
        return finishing
