"""Requests by rank: priority classes, shortest job first, least slack to the deadline.

The mechanism is vLLM V1's with `--scheduling-policy priority`: one token budget, running requests before
waiting ones, admissions in the order of rank and never out of turn, and when blocks run out the running
request with the highest rank is preempted.

Source: vLLM vllm/v1/core/sched/scheduler.py and request_queue.py (SchedulingPolicy.PRIORITY, read 2026-11).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from random import Random

from ...request import Request
from ..kv.blocks import KvCache
from ..live_request import LiveRequest
from .core import SchedulerCore
from .ranked_spec import RankedSpec
from .vllm_v1_spec import VllmV1Settings, VllmV1Spec

__all__ = ["RankedScheduler", "RankedSpec"]

Rank = tuple[float, float, int]
"""Lowest first: what the order says, then the instant of arrival, then the row."""


def rank_of(spec: RankedSpec | VllmV1Spec) -> Callable[[Request], Rank]:
    """Returns how `spec` ranks requests."""

    def by_priority(request: Request) -> Rank:
        return request.priority, request.arrived_at, request.index

    if isinstance(spec, VllmV1Spec) or spec.order == "priority":
        return by_priority

    def by_length(request: Request) -> Rank:
        # A predictor's error belongs to the request: seeded by its row, it is the same in every run.
        error = Random(request.index).lognormvariate(0.0, spec.length_error) if spec.length_error else 1.0
        return request.prompt_tokens + request.output_tokens * error, request.arrived_at, request.index

    def by_slack(request: Request) -> Rank:
        # Slack is this less the present instant, the same for all.
        due_at = request.arrived_at + spec.ttft_slo_ms / 1000
        starts_by = due_at - request.prompt_tokens / spec.prefill_tokens_per_s
        return starts_by, request.arrived_at, request.index

    return by_length if spec.order == "shortest_job" else by_slack


class RankedScheduler(SchedulerCore):
    """vLLM V1's mechanism over any KV cache, with requests by rank."""

    def __init__(
        self, spec: RankedSpec | VllmV1Spec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0
    ) -> None:
        super().__init__(kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
        settings: VllmV1Settings = spec
        self._budget = settings.max_num_batched_tokens
        self._max_num_seqs = settings.max_num_seqs
        self._is_chunked = settings.enable_chunked_prefill
        self._threshold = settings.long_prefill_token_threshold or max_model_len
        self._reserves_all = settings.scheduler_reserve_full_isl
        self._watermark_blocks = int(settings.watermark * (kv.num_blocks + 1))
        self._rank = rank_of(spec)
        # Each request's rank is worked out once: it must not change while the request is queued.
        self._ranks: dict[LiveRequest, Rank] = {}

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        longest = prompt_tokens + num_output_tokens - 1
        if not self._is_chunked and min(longest, self._threshold) > self._budget:
            return "exceeds_token_budget"
        return super()._refusal(prompt_tokens, num_output_tokens)

    def _enqueue(self, live: LiveRequest) -> None:
        self._ranks[live] = self._rank(live.request)
        self._requeue(live)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks."""
        super().finish(finished)
        for live in finished:
            del self._ranks[live]

    def _requeue(self, victim: LiveRequest) -> None:
        insort(self._waiting, victim, key=self._ranks.__getitem__)

    def _compose(self) -> bool:
        # SIMPLIFIED: decodes get their token before prompts do, whoever ranks higher; effect: none while
        # max_num_batched_tokens covers max_num_seqs, as it must.
        budget = self._budget - self._decodes.count
        num_before = self._num_preempted
        for live in sorted(self._prefilling, key=self._ranks.__getitem__):
            num_tokens = min(live.num_tokens - live.num_computed, self._threshold, budget)
            if live in self._running and num_tokens > 0 and self._make_room(live, num_tokens):
                self._continue(live, num_tokens)
                budget -= num_tokens
        self._fit_decodes(self._worst_running)
        if self._num_preempted == num_before:
            self._admit_waiting(budget)
        return True

    def _make_room(self, live: LiveRequest, num_tokens: int) -> bool:
        """Frees the blocks of a chunk and of the decodes beside it; returns whether `live` still runs."""
        while True:
            needed = self._blocks_of_chunk(live, num_tokens) + self._decodes.blocks_for(self._tick + 1)
            if needed <= self.kv.num_free:
                return True
            victim = self._worst_running()
            if victim is None:
                return False
            self._preempt(victim)
            if victim is live:
                return False

    def _worst_running(self) -> LiveRequest | None:
        granted = {live for live, _, _ in self._prefills}
        ranks = self._ranks
        candidates = [live for live in self._running if live not in granted and _is_active(live)]
        return max(candidates, key=ranks.__getitem__, default=None)

    def _admit_waiting(self, budget: int) -> None:
        kv, size = self.kv, self.kv.block_size
        while self._waiting and budget > 0 and len(self._running) < self._max_num_seqs:
            live = self._waiting[0]
            hit = kv.lookup(live)
            lacking = live.num_tokens - hit.num_blocks * size
            num_tokens = min(lacking, self._threshold)
            if num_tokens > budget:
                if not self._is_chunked:
                    return
                num_tokens = budget
            gate = live.num_tokens if self._reserves_all else hit.num_blocks * size + num_tokens
            needed = -(-gate // size) - hit.num_blocks + hit.num_free_blocks
            if needed + (self._watermark_blocks if self._running else 0) > kv.num_free:
                self._is_blocked = True
                return
            self._admit(self._waiting.popleft(), hit, num_tokens)
            budget -= num_tokens
        self._is_blocked = len(self._running) >= self._max_num_seqs


def _is_active(live: LiveRequest) -> bool:
    """Returns whether a running request still has tokens to get: others wait for their last output only."""
    return live.is_decoding or live.num_sampled < live.num_output_tokens
