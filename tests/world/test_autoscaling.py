"""Autoscaling in time: replicas come after their delay, drain before they go, and are paid for meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import make_demand, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.policy.autoscaler import AutoscalerSpec
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.world.operations import PoolSize
from simllm.sim.world.recorder import Status

from .drawn import SETTINGS, demands
from .fleets import play_fleet

SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)


def pool(num_replicas: int = 1, load_s: float = 0.0, **fields: Any) -> PoolSize:
    given = {
        "target": 2,
        "max_replicas": 4,
        "sync_s": 0.1,
        "scale_down_stabilization_s": 0.0,
        "provision_s": 0.15,
        "start_s": 0.1,
    }
    return PoolSize(num_replicas, AutoscalerSpec.model_validate({**given, **fields}), load_s)


def sizes(recorder: Any) -> list[tuple[float, int, int]]:
    return [(round(size.at, 6), *size[2:]) for size in recorder.fleet.sizes]


def test_a_new_replica_serves_when_it_is_provisioned_loaded_and_started() -> None:
    # Eight requests at once are 4 replicas' worth: the first look, at 0.1 s, launches three, for 0.4 s later.
    demand = make_demand([(0.0, 4, 100)] * 8 + [(0.55, 4, 2)] * 3)
    recorder = play_fleet(demand, pools=(pool(load_s=0.15, scale_down_stabilization_s=9),), spec=SYNC)
    launched = [(0.1, 1, 2), (0.1, 1, 3), (0.1, 1, 4)]
    assert sizes(recorder) == [(0.0, 1, 1), *launched, (0.5, 2, 4), (0.5, 3, 4), (0.5, 4, 4)]
    assert list(recorder.replica[8:]) == [1, 2, 3]
    # One replica from 0, three from 0.1 s on.
    assert recorder.fleet is not None
    assert recorder.fleet.paid_s[0] == pytest.approx(4 * recorder.ended_at - 0.3)


def test_a_drained_replica_finishes_what_it_has_and_gets_nothing_new() -> None:
    # Two requests of 0.5 s on two replicas; target 2 a replica: the first look drains one. The third request
    # finds the other one alone.
    demand = make_demand([(0.0, 4, 50), (0.0, 4, 50), (0.2, 4, 2)])
    recorder = play_fleet(demand, pools=(pool(2),), spec=SYNC)
    assert [Status(status) for status in recorder.status] == [Status.FINISHED] * 3
    drained = 1 - recorder.replica[2]
    assert recorder.fleet is not None and recorder.fleet.num_drained == 1
    assert recorder.fleet.lives[drained][1] == pytest.approx(recorder.finished_at[drained])


def test_a_crashed_replica_that_does_not_come_back_is_replaced() -> None:
    crash = {"kind": "crash", "at_s": 0.05, "replica": 0, "restart_s": None}
    recorder = play_fleet(
        make_demand([(0.0, 4, 10)]),
        pools=(pool(),),
        faults={"schedule": [crash], "retry": {"backoff_s": 0.0}},
        spec=SYNC,
    )
    # Seen at 0.1 s, there 0.25 s later; nothing else happens meanwhile.
    assert recorder.scheduled_at[0] == pytest.approx(0.35) and recorder.status[0] == Status.FINISHED


def test_answers_that_miss_the_slo_bring_replicas() -> None:
    demand = make_demand([(0.02 * i, 4, 10) for i in range(60)])
    fields = {"metric": "slo", "target": 0.9, "provision_s": 0.0, "start_s": 0.0}
    strict, lax = (
        play_fleet(demand, pools=(pool(**fields),), spec=SYNC, limits_s={"e2el": limit_s}).fleet
        for limit_s in (0.05, 5.0)
    )
    assert strict is not None and lax is not None
    assert strict.num_launches > 0 == lax.num_launches


@settings(max_examples=40, deadline=None)
@given(
    demands(),
    SETTINGS,
    st.sampled_from(["outstanding", "waiting"]),
    st.sampled_from([None, {"crashes": {"mtbf_s": 0.5, "restart_s": 0.1}}]),
)
def test_while_replicas_come_and_go_every_request_ends_and_leaps_change_nothing(
    demand: Any, kept: dict[str, Any], metric: str, faults: dict[str, Any] | None
) -> None:
    own = {name: kept[name] for name in ("spec", "model", "num_blocks", "caches")}
    leaping, plain = (
        play_fleet(demand, pools=(pool(metric=metric, sync_s=0.0917),), faults=faults, leaps=leaps, **own)
        for leaps in (True, False)
    )
    assert {Status(status) for status in leaping.status} <= {Status.FINISHED, Status.FAILED, Status.REJECTED}
    np.testing.assert_allclose(request_rows(leaping), request_rows(plain), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(step_rows(leaping), step_rows(plain), rtol=1e-9, atol=1e-9)
    assert leaping.fleet is not None and plain.fleet is not None
    np.testing.assert_allclose(leaping.fleet.sizes, plain.fleet.sizes, rtol=1e-9)
