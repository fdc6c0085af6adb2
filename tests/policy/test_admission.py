"""Rate limits and queues at the gate, each case worked out by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simllm.sim.policy.admission import AdmissionPolicy, AdmissionSpec, TenantSpec
from simllm.sim.policy.admission.bucket import Bucket
from simllm.sim.request import Request


def request(index: int, tokens: int = 10, tenant: int = 0, priority: int = 0) -> Request:
    return Request(index, 0.0, tokens - 1, 1, tenant=tenant, priority=priority)


def queueing(*tenants: TenantSpec, **fields: object) -> AdmissionPolicy:
    spec = AdmissionSpec.model_validate(
        {"tenants": tenants or (TenantSpec(name="one"),), "max_outstanding_per_replica": 1, **fields}
    )
    return AdmissionPolicy(spec)


def order(policy: AdmissionPolicy, now: float = 0.0) -> list[int]:
    out = []
    while (following := policy.next(now)) is not None:
        out.append(following[0].index)
    return out


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(rate=2.0, burst=3.0)
    taken = []
    for now in (0.0, 0.0, 0.0, 0.0, 0.4, 0.5, 1.0):
        # Three at once; at 0.4 s 0.8 have come, at 0.5 s one, at 1 s another.
        taken.append(bucket.holds(1, now))
        if taken[-1]:
            bucket.take(1)
    assert taken == [True, True, True, False, False, True, True]


def test_who_asks_for_more_than_a_burst_waits_for_a_full_bucket_and_leaves_it_in_debt() -> None:
    bucket = Bucket(rate=10.0, burst=20.0)
    assert bucket.holds(50, 0.0)
    bucket.take(50)  # -30: full again after 5 s
    assert not bucket.holds(50, 4.9) and bucket.holds(50, 5.0)


def test_each_tenant_has_its_own_rate_of_requests_and_tokens() -> None:
    policy = AdmissionPolicy(
        AdmissionSpec(
            tenants=(
                TenantSpec(name="a", requests_per_s=1),
                TenantSpec(name="b", tokens_per_s=10, burst_tokens=20),
            )
        )
    )
    refusals = [policy.refusal(request(i, tenant=i % 2), 0.0) for i in range(6)]
    # a: its burst of one request, then none. b: two requests of 10 tokens, then none.
    assert refusals == [None, None, "request_rate_limit", None, "request_rate_limit", "token_rate_limit"]


def test_a_lower_priority_class_goes_first_whatever_came_before() -> None:
    policy = queueing()
    for index, priority in enumerate((5, 0, 5, -1)):
        assert policy.queue(request(index, priority=priority), 0.0) is None
    assert order(policy) == [3, 1, 0, 2]


def test_fair_queueing_gives_tokens_by_weight_while_tenants_compete() -> None:
    tenants = (TenantSpec(name="heavy", weight=2), TenantSpec(name="light"))
    policy = queueing(*tenants, order="fair", quantum_tokens=10)
    for index in range(12):
        policy.queue(request(index, tenant=int(index >= 6)), 0.0)
    # Requests cost 10 tokens: two of tenant 0 (0 to 5), one of tenant 1 (6 to 11), until tenant 0 has none.
    assert order(policy) == [0, 1, 6, 2, 3, 7, 4, 5, 8, 9, 10, 11]


def test_a_request_larger_than_a_quantum_saves_up_for_its_turn() -> None:
    policy = queueing(TenantSpec(name="a"), TenantSpec(name="b"), order="fair", quantum_tokens=10)
    policy.queue(request(0, tokens=25, tenant=0), 0.0)
    for index in range(1, 5):
        policy.queue(request(index, tenant=1), 0.0)
    assert order(policy) == [1, 2, 0, 3, 4]  # 10, 20, 30 >= 25 in the third turn


def test_the_earliest_deadline_goes_first_and_who_has_missed_it_is_refused() -> None:
    tenants = (TenantSpec(name="chat", ttft_slo_ms=500), TenantSpec(name="batch", ttft_slo_ms=60_000))
    policy = queueing(*tenants, order="deadline", drops_late=True)
    policy.queue(request(0, tenant=1), 0.0)
    policy.queue(request(1, tenant=0), 0.1)
    policy.queue(request(2, tenant=0), 0.3)
    assert policy.next(0.7) == (request(1, tenant=0), "deadline_missed")  # due at 0.6
    assert order(policy, 0.7) == [2, 0]


def test_queues_have_limits_in_all_and_by_tenant() -> None:
    policy = queueing(TenantSpec(name="a", max_queued=1), TenantSpec(name="b"), max_queued=2)
    refusals = [policy.queue(request(i, tenant=tenant), 0.0) for i, tenant in enumerate((0, 0, 1, 1))]
    assert refusals == [None, "tenant_queue_full", None, "queue_full"]


def test_who_has_waited_too_long_leaves_the_queue_and_its_place() -> None:
    policy = queueing(queue_timeout_s=2.0, max_queued=2)
    policy.queue(request(0), 0.0)
    policy.queue(request(1), 1.0)
    assert policy.times_out_at() == 2.0
    assert policy.timed_out(2.0) == request(0) and policy.timed_out(2.0) is None
    assert policy.queue(request(2), 2.0) is None
    assert order(policy) == [1, 2]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"queue_timeout_s": 1}, "needs max_outstanding_per_replica"),
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "names must differ"),
        ({"order": "deadline", "max_outstanding_per_replica": 1}, "ttft_slo_ms"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AdmissionSpec.model_validate(fields)
