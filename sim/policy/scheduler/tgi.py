"""TGI's scheduler: the router adds batches of waiting requests to a running one, memory for whole answers.

While a batch decodes, the router asks its queue for another before each step. It gets one if as many
requests wait as make the decodes' pause worth it, or after some steps in any case, and if their whole
prompts and answers fit. Until v2 the new prompts run alone and the decodes wait; from v3 on they run
together, prompts split to the budget. Nobody is ever preempted.

Source: TGI router/src/{queue,infer}.rs at v0.8.2; backends/v2/src/{queue,backend}.rs at v2.4.1;
backends/v3/src/{queue,backend}.rs and server flash_causal_lm.py at v3.3.7.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....hwmodels.step import DecodeGroup
from ...request import Request
from ..kv.blocks import KvCache
from ..live_request import LiveRequest
from .base import Outlook
from .core import SchedulerCore
from .tgi_queue import TgiQueue
from .tgi_spec import TgiSpec

__all__ = ["TgiScheduler", "TgiSpec"]


class TgiScheduler(SchedulerCore):
    """TGI's router over any KV cache.

    _waiting_tokens: decode steps since prompts ran last, that one included. _may_ask: the router asks its
    queue before the next step; it does not between a new batch and the first step of both together.
    """

    def __init__(self, spec: TgiSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(
            kv=kv, max_model_len=max_model_len, block_bytes=block_bytes, max_new_tokens=spec.max_new_tokens
        )
        self._mixes = spec.version == "v3"
        self._max_concurrent = spec.max_concurrent_requests
        self._ratio = spec.served_ratio
        self._max_waiting_tokens = spec.max_waiting_tokens
        self._budget = spec.prefill_budget
        self._queue = TgiQueue(spec, kv)
        self._waiting_tokens = 1
        self._may_ask = True
        self._waits_for_more = False  # fewer wait than make a pause worth it

    def add(self, request: Request) -> str | None:
        """Queues a request unless the server is full or could never serve it."""
        if len(self._waiting) + len(self._running) >= self._max_concurrent:
            return "overloaded"
        return super().add(request)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and what was set aside."""
        super().finish(finished)
        for live in finished:
            self._queue.ended(live)

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next, at most until the router lets in whoever waits."""
        ahead = super().outlook()
        if ahead is None or not (self._waiting and self._waits_for_more):
            return ahead
        num_steps, decodes, _ = ahead
        num_left = self._max_waiting_tokens - self._waiting_tokens
        return ahead if num_steps <= num_left else _shortened(num_left, decodes)

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        self._waiting_tokens += num_steps
        self._may_ask = True
        self._queue.took(self._decodes.blocks_for_steps(self._tick + 1, num_steps))
        return super().advance(num_steps)

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        if self._budget is not None and not self._mixes and prompt_tokens > self._queue.padded(self._budget):
            return "exceeds_token_budget"
        return None if self._queue.can_ever_hold(prompt_tokens, num_output_tokens) else "exceeds_kv_cache"

    def _limit(self, live: LiveRequest) -> int:
        # What the server could never hold is cut off what clients ask for.
        room = self._queue.longest_answer(live.prompt_tokens)
        return max(live.num_output_tokens, min(super()._limit(live), room))

    def _compose(self) -> bool:
        """Prompts of a new batch, beside decodes or in place of them, or decodes."""
        was_idle, num_before = not self._running, len(self._running)
        asks = was_idle or self._may_ask
        self._waits_for_more = False
        if self._mixes:
            self._go_on()
        if asks and self._waiting:
            self._ask(None if was_idle else self._min_size())
        has_admitted = len(self._running) > num_before
        self._is_blocked = asks and not has_admitted
        # The outer loop of the router, with no batch yet, asks once more before it decodes.
        self._may_ask = was_idle or not has_admitted
        self._waiting_tokens = 1 if has_admitted else self._waiting_tokens + 1
        if has_admitted and not self._mixes:
            return False
        self._queue.took(self._decodes.blocks_for(self._tick + 1))
        self._fit_decodes(lambda: None)
        return True

    def _min_size(self) -> int | None:
        """Returns how many requests a new batch needs at least; None if any number will do."""
        if self._mixes or self._waiting_tokens >= self._max_waiting_tokens:
            return None
        return int(len(self._running) * self._ratio)

    def _go_on(self) -> None:
        """Continues the prompts that were split, older ones first; each gets a token at least."""
        if not self._prefilling or self._budget is None:
            return
        budget = self._budget - (len(self._running) - 1)
        for live in self._prefilling:
            num_tokens = max(min(live.num_tokens - live.num_computed, budget), 1)
            budget -= num_tokens
            self._queue.took(self._blocks_of_chunk(live, num_tokens))
            self._continue(live, num_tokens)

    def _ask(self, min_size: int | None) -> None:
        """Admits the next batch from the head of the queue, whole or not at all."""
        waiting, queue = self._waiting, self._queue
        budget = self._budget
        if budget is not None:
            in_step = self._decodes.count + sum(num_tokens for _, num_tokens, _ in self._prefills)
            budget = queue.padded(max(budget - in_step, 0) if self._mixes else budget)
        queue.begin(budget)
        if min_size is not None:
            limits = ((live, self._limit(live)) for live in waiting)
            if len(waiting) < min_size or queue.num_fitting(limits) < min_size:
                self._waits_for_more = True
                return
        while waiting:
            live = waiting[0]
            granted = queue.grant(live, self._limit(live))
            if granted is None:
                return
            self._admit(waiting.popleft(), *granted)
            queue.admitted(live, self._limit(live))


def _shortened(num_steps: int, decodes: DecodeGroup) -> Outlook | None:
    return (num_steps, decodes, False) if num_steps > 0 else None
