"""Admission: rate limits per tenant, and a queue by priority class in front of the router."""

from __future__ import annotations

from collections import deque

from ...request import Request
from ..router import Refusal
from .bucket import Bucket
from .lanes import Lane, Queued, deadline_at, make_lane
from .spec import AdmissionSpec, TenantSpec

__all__ = ["AdmissionPolicy", "AdmissionSpec", "TenantSpec"]

# Tokens that may come at once, in seconds of their rate: limits are given per minute in the field.
# Source: OpenAI and Azure OpenAI quota documentation (tokens per minute, TPM).
_BURST_S = 60.0


class AdmissionPolicy:
    """Who is refused at the gate, and who of those that wait goes next. Pure: the gate tells it the time."""

    def __init__(self, spec: AdmissionSpec) -> None:
        self._spec = spec
        self._requests = [_bucket(tenant.requests_per_s, tenant.burst_requests) for tenant in spec.tenants]
        self._tokens = [_bucket(tenant.tokens_per_s, tenant.burst_tokens) for tenant in spec.tenants]
        self._lanes: dict[int, Lane] = {}
        self._by_age: deque[Queued] = deque()
        self._num_queued_of = [0] * len(spec.tenants)
        self.num_queued = 0

    def refusal(self, request: Request, now: float) -> Refusal | None:
        """Returns why a request that comes now goes over its tenant's rate; else counts it and gives None."""
        tenant = self._tenant(request)
        requests, tokens = self._requests[tenant], self._tokens[tenant]
        num_tokens = request.prompt_tokens + request.output_tokens
        if requests is not None and not requests.holds(1, now):
            return Refusal("request_rate_limit")
        if tokens is not None and not tokens.holds(num_tokens, now):
            return Refusal("token_rate_limit")
        if requests is not None:
            requests.take(1)
        if tokens is not None:
            tokens.take(num_tokens)
        return None

    def queue(self, request: Request, now: float) -> Refusal | None:
        """Lets a request wait; returns why if there is no place for it."""
        spec, tenant = self._spec, self._tenant(request)
        if spec.max_queued is not None and self.num_queued >= spec.max_queued:
            return Refusal("queue_full")
        most = spec.tenants[tenant].max_queued
        if most is not None and self._num_queued_of[tenant] >= most:
            return Refusal("tenant_queue_full")
        own = spec.tenants[tenant].priority
        priority = request.priority if own is None else own
        if priority not in self._lanes:
            self._lanes[priority] = make_lane(spec)
            self._lanes = dict(sorted(self._lanes.items()))
        queued = Queued(request, tenant, now, deadline_at(spec, tenant, now))
        self._lanes[priority].push(queued)
        if spec.queue_timeout_s is not None:
            self._by_age.append(queued)
        self.num_queued += 1
        self._num_queued_of[tenant] += 1
        return None

    def next(self, now: float) -> tuple[Request, Refusal | None] | None:
        """Takes out who goes next, and why if it is refused instead; None if nobody waits."""
        for lane in self._lanes.values():
            while (queued := lane.pop()) is not None:
                if not queued.has_left:
                    self._leave(queued)
                    is_late = self._spec.drops_late and queued.deadline_at < now
                    return queued.request, Refusal("deadline_missed") if is_late else None
        return None

    def times_out_at(self) -> float | None:
        """Returns when the oldest of those that wait will have waited too long [s]; None for never."""
        while self._by_age and self._by_age[0].has_left:
            self._by_age.popleft()
        timeout_s = self._spec.queue_timeout_s
        return self._by_age[0].queued_at + timeout_s if self._by_age and timeout_s is not None else None

    def timed_out(self, now: float) -> Request | None:
        """Takes out one that has waited too long; None if nobody has."""
        due_at = self.times_out_at()
        if due_at is None or due_at > now:
            return None
        queued = self._by_age.popleft()
        self._leave(queued)
        return queued.request

    def _leave(self, queued: Queued) -> None:
        queued.has_left = True
        self.num_queued -= 1
        self._num_queued_of[queued.tenant] -= 1

    def _tenant(self, request: Request) -> int:
        return min(request.tenant, len(self._spec.tenants) - 1)


def _bucket(rate: float | None, burst: float | None) -> Bucket | None:
    if rate is None:
        return None
    return Bucket(rate, _BURST_S * rate if burst is None else burst)
