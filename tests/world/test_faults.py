"""Faults: what a crash loses, where requests go then, and that each of them ends, whatever breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import make_demand, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.fault_plan import FaultSpec, faults_of
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.world.operations import PoolSize
from simllm.sim.world.recorder import Recorder, Status

from .drawn import SETTINGS, demands
from .fleets import play_fleet

SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)
NO_BACKOFF = {"backoff_s": 0.0}


def crash(at_s: float, replica: int = 0, restart_s: float | None = None) -> dict[str, Any]:
    return {"kind": "crash", "at_s": at_s, "replica": replica, "restart_s": restart_s}


@pytest.mark.parametrize("leaps", [True, False])
def test_a_request_whose_replica_crashes_begins_anew_on_another(leaps: bool) -> None:
    # Steps of 10 ms: one for the prompt of 8, nine for the other tokens. At 55 ms replica 0 is in its sixth.
    faults = {"schedule": [crash(0.055)], "retry": NO_BACKOFF}
    model = ToyStepModel(base_s=0.01)
    recorder = play_fleet(
        make_demand([(0.0, 8, 10)]), pools=(PoolSize(2),), faults=faults, spec=SYNC, model=model, leaps=leaps
    )
    second_s = 0.01 * (1 + 1 / 997)
    assert recorder.replica[0] == 1
    assert recorder.first_token_at[0] == pytest.approx(0.055 + second_s)
    assert recorder.finished_at[0] == pytest.approx(0.055 + 10 * second_s)
    assert recorder.fleet is not None
    # The prompt and five decodes, the one in flight included, for nothing.
    assert recorder.fleet.lost_tokens == 8 + 5
    assert (recorder.fleet.num_crashes, recorder.fleet.num_lost, recorder.fleet.num_retries) == (1, 1, 1)


def test_a_request_waits_for_the_restart_where_no_other_replica_serves() -> None:
    faults = {"schedule": [crash(0.055, restart_s=1.0)], "retry": NO_BACKOFF}
    recorder = play_fleet(make_demand([(0.0, 8, 10), (0.5, 8, 1)]), faults=faults, spec=SYNC)
    assert recorder.scheduled_at[0] == recorder.scheduled_at[1] == pytest.approx(1.055)
    fleet = recorder.fleet
    assert fleet is not None and fleet.down_s == pytest.approx(1.0)
    assert fleet.availability == pytest.approx(1 - 1.0 / recorder.ended_at)


@pytest.mark.parametrize(
    ("retry", "reason"),
    [
        ({"max_attempts": 1}, "replica_crashed"),
        ({"backoff_s": 2.0, "timeout_s": 1.5}, "retry_timeout"),
        (NO_BACKOFF, "no_replica"),
    ],
)
def test_a_request_that_is_not_sent_again_has_failed_for_a_reason(
    retry: dict[str, float], reason: str
) -> None:
    faults = {"schedule": [crash(0.055)], "retry": retry}
    recorder = play_fleet(make_demand([(0.0, 8, 10)]), faults=faults, spec=SYNC)
    assert recorder.status[0] == Status.FAILED and recorder.reasons == {0: reason}


def test_each_further_attempt_waits_longer() -> None:
    # Crashes at 0.05, restarts at once; sent again at 0.05 + 0.1, crash at 0.2, again at 0.2 + 0.3.
    faults = {
        "schedule": [crash(0.05, restart_s=0.0), crash(0.2, restart_s=0.0)],
        "retry": {"backoff_s": 0.1, "backoff_factor": 3.0},
    }
    recorder = play_fleet(make_demand([(0.0, 8, 10)]), faults=faults, spec=SYNC)
    assert recorder.scheduled_at[0] == pytest.approx(0.5)


def test_a_lost_node_takes_all_its_replicas() -> None:
    faults = {
        "schedule": [{"kind": "node_loss", "at_s": 0.015, "node": 1, "restart_s": None}],
        "replicas_per_node": 2,
        "retry": NO_BACKOFF,
    }
    recorder = play_fleet(make_demand([(0.0, 8, 10)] * 4), pools=(PoolSize(4),), faults=faults)
    assert recorder.fleet is not None and recorder.fleet.num_crashes == 2
    assert set(recorder.replica) == {0, 1}


@pytest.mark.parametrize("leaps", [True, False])
def test_steps_decided_on_a_slow_gpu_take_longer_until_it_recovers(leaps: bool) -> None:
    # Slow from within the second step (10 to 20 ms) until within the fourth, which began at 50 ms.
    slow = {"kind": "slow", "at_s": 0.015, "replica": 0, "factor": 3, "duration_s": 0.05}
    recorder = play_fleet(make_demand([(0.0, 8, 6)]), faults={"schedule": [slow]}, spec=SYNC, leaps=leaps)
    assert step_rows(recorder)[:, 3] == pytest.approx([0.01, 0.01, 0.03, 0.03, 0.01, 0.01])


def test_random_faults_are_the_same_for_a_seed_and_come_as_often_as_their_mean_time_says() -> None:
    spec = FaultSpec.model_validate({"crashes": {"mtbf_s": 100.0, "restart_s": 0.0}})
    plans = [faults_of(spec, 1, [np.random.default_rng(seed)]) for seed in (1, 1)]
    first, second = ([next(plan).at for _ in range(1000)] for plan in plans)
    assert first == second
    assert first[-1] / 1000 == pytest.approx(100.0, rel=0.1)  # 3 standard deviations


FAULTS = st.fixed_dictionaries(
    {
        "schedule": st.lists(
            st.one_of(
                st.builds(crash, st.floats(0, 3), st.integers(0, 1), st.sampled_from([None, 0.0, 0.4])),
                st.fixed_dictionaries(
                    {
                        "kind": st.just("slow"),
                        "at_s": st.floats(0, 3),
                        "replica": st.integers(0, 1),
                        "factor": st.sampled_from([1.5, 4.0]),
                        "duration_s": st.sampled_from([0.013, 0.5]),
                    }
                ),
            ),
            max_size=4,
        ),
        "crashes": st.sampled_from([None, {"mtbf_s": 0.7, "restart_s": 0.1}]),
        "retry": st.fixed_dictionaries(
            {
                "max_attempts": st.integers(1, 4),
                "backoff_s": st.sampled_from([0.0, 0.05]),
                "timeout_s": st.sampled_from([None, 1.0]),
            }
        ),
    }
)
ADMISSION = st.sampled_from(
    [
        None,
        {"max_outstanding_per_replica": 2, "queue_timeout_s": 1.0},
        {"max_outstanding_per_replica": 3, "max_queued": 4, "order": "fair"},
    ]
)


def played(demand: Any, kept: dict[str, Any], leaps: bool, **changes: Any) -> Recorder:
    own = ("spec", "model", "num_blocks", "caches")
    return play_fleet(
        demand, pools=(PoolSize(2),), leaps=leaps, **{name: kept[name] for name in own}, **changes
    )


@settings(max_examples=60, deadline=None)
@given(demands(), SETTINGS, FAULTS, ADMISSION)
def test_under_any_faults_every_request_ends_and_leaps_change_nothing(
    demand: Any, kept: dict[str, Any], faults: dict[str, Any], admission: dict[str, Any] | None
) -> None:
    leaping, plain = (
        played(demand, kept, leaps, faults=faults, admission=admission) for leaps in (True, False)
    )
    ended = {Status.FINISHED, Status.FAILED, Status.REJECTED}
    assert {Status(status) for status in leaping.status} <= ended
    assert set(leaping.reasons) == {i for i, s in enumerate(leaping.status) if s != Status.FINISHED}
    np.testing.assert_allclose(request_rows(leaping), request_rows(plain), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(step_rows(leaping), step_rows(plain), rtol=1e-9, atol=1e-9)
    assert leaping.reasons == plain.reasons
    assert leaping.fleet is not None and plain.fleet is not None
    assert leaping.fleet.lost_tokens == plain.fleet.lost_tokens >= 0
