"""The gate in time: who waits for room, who waited too long, and how tenants share the replicas."""

from __future__ import annotations

import numpy as np
import pytest
from harness import make_demand

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.world.operations import PoolSize
from simllm.sim.world.recorder import Status

from .fleets import play_fleet

# One step of 10 ms per token: a request of n output tokens takes n steps.
SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)


def test_a_request_waits_at_the_gate_until_one_before_it_has_ended() -> None:
    recorder = play_fleet(
        make_demand([(0.0, 4, 3), (0.0, 4, 2)]), admission={"max_outstanding_per_replica": 1}, spec=SYNC
    )
    assert list(recorder.finished_at) == pytest.approx([0.03, 0.05])


def test_two_replicas_have_room_for_twice_as_many() -> None:
    recorder = play_fleet(
        make_demand([(0.0, 4, 3)] * 3),
        admission={"max_outstanding_per_replica": 1},
        pools=(PoolSize(2),),
        spec=SYNC,
    )
    assert [at < 0.02 for at in recorder.scheduled_at] == [True, True, False]


def test_who_has_waited_too_long_is_refused_when_that_is_so() -> None:
    demand = make_demand([(0.0, 4, 10), (0.01, 4, 1), (0.095, 4, 1)], num_clients=None)
    recorder = play_fleet(
        demand, admission={"max_outstanding_per_replica": 1, "queue_timeout_s": 0.05}, spec=SYNC
    )
    assert recorder.reasons == {1: "queue_timeout"}
    assert recorder.finished_at[2] == pytest.approx(0.11)


def test_a_client_of_a_closed_loop_goes_on_after_a_refusal() -> None:
    # One request per 100 s: the first is served, the rest are refused one after the other.
    demand = make_demand([(0.0, 4, 2)] * 4, num_clients=1)
    recorder = play_fleet(demand, admission={"tenants": [{"name": "a", "requests_per_s": 0.01}]}, spec=SYNC)
    assert [Status(status).name for status in recorder.status] == ["FINISHED"] + 3 * ["REJECTED"]
    assert set(recorder.reasons.values()) == {"request_rate_limit"}


def test_a_tenant_that_floods_the_gate_does_not_delay_a_modest_one_when_queueing_is_fair() -> None:
    demand = make_demand([(0.0, 4, 5)] * 20 + [(0.001, 4, 5)])
    demand.tenant = np.array([0] * 20 + [1])
    tenants = [{"name": "flood"}, {"name": "modest"}]
    waits = {}
    for order in ("fifo", "fair"):
        admission = {
            "tenants": tenants,
            "max_outstanding_per_replica": 1,
            "order": order,
            "quantum_tokens": 9,
        }
        recorder = play_fleet(demand, admission=admission, spec=SYNC)
        waits[order] = recorder.scheduled_at[20]
    # Last of 21 requests of 50 ms each, or at most third.
    assert waits["fifo"] == pytest.approx(1.0) and waits["fair"] <= 0.1 + 1e-9
