"""Admission, faults and autoscaling of whole scenarios, down to the summary."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.errors import ScenarioError
from simllm.sim.run import simulate

from .small import scenario

CRASH = "faults={schedule: [{kind: crash, at_s: 1, replica: 0, restart_s: 5}]}"


def test_a_crash_is_in_the_summary_with_what_it_cost() -> None:
    result = simulate(scenario("pools.0.replicas=2", CRASH))
    summary, requests = result.summary(), result.requests
    faults = summary["faults"]
    assert summary["completed"] == 40 and faults["crashes"] == 1
    assert faults["lost_requests"] == faults["retries"] > 0 < faults["lost_tokens"]
    # Two replicas to the end, one of them down for 5 s or until then.
    span_s = requests["finished_at"].max()
    assert faults["availability"] == pytest.approx(1 - min(5, span_s - 1) / (2 * span_s))
    assert summary["gpu_hours"] == pytest.approx(2 * span_s / 3600)


def test_who_is_given_up_counts_as_failed_with_its_reason_and_the_counts_add_up() -> None:
    result = simulate(scenario(CRASH, "faults.retry={max_attempts: 1}"))
    summary = result.summary()
    assert summary["given_up"] == summary["faults"]["lost_requests"] > 0
    assert summary["failures"] == {"replica_crashed": summary["given_up"]}
    assert summary["completed"] + summary["given_up"] == 40 and summary["failed"] == summary["given_up"]
    assert (result.requests["status"] == "failed").sum() == summary["given_up"]


def test_each_tenant_is_summed_up_and_limited_by_its_own_rate() -> None:
    tenants = "[{name: free, requests_per_s: 1}, {name: paid}]"
    result = simulate(scenario("workload.tenant_shares=[1, 1]", f"admission={{tenants: {tenants}}}"))
    free, paid = result.summary()["tenants"]
    assert free["requests"] + paid["requests"] == 40 and paid["rejected"] == 0
    assert free["completed"] + free["rejected"] == free["requests"]
    assert result.summary()["rejections"] == {"request_rate_limit": free["rejected"]}
    assert result.summary()["unservable"] == 0 < free["rejected"]


def test_an_autoscaled_pool_costs_what_its_replicas_were_up() -> None:
    result = simulate(
        scenario(
            "workload.num_requests=200",
            "pools.0.price_per_gpu_hour=3.6",
            "pools.0.autoscaler={target: 4, max_replicas: 3, sync_s: 1, provision_s: 1, start_s: 0}",
        )
    )
    summary = result.summary()
    (pool,) = summary["scaling"]["pools"]
    assert summary["scaling"]["launched"] > 0 and pool["max_serving"] > 1
    assert summary["cost_usd"] == pytest.approx(3.6 * summary["gpu_hours"])
    # 16 GB of weights at 2 GB/s, and a second until the machine is there.
    launched_at, served_at = pool["replicas"][1][0], pool["replicas"][2][0]
    assert served_at - launched_at == pytest.approx(1 + 16.06 / 2, rel=0.01)
    assert len(summary["replicas"]) > 1 and 0 < summary["busy_share"] <= 1


def test_a_plain_run_has_no_fleet_but_its_gpu_hours() -> None:
    summary = simulate(scenario()).summary()
    assert summary["faults"] is None and summary["scaling"] is None and summary["tenants"] == []
    assert summary["gpu_hours"] == pytest.approx(summary["span_s"] / 3600, rel=0.1)
    assert summary["cost_usd"] > 0  # h100-sxm has a shipped price


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("faults={schedule: [{kind: crash, at_s: 1, replica: 7}]}", "replica 7; there are 1"),
        ("pools.0.autoscaler={target: 4, min_replicas: 2, max_replicas: 3}", "its autoscaler's 2 to 3"),
        ("pools.0.autoscaler={metric: slo, target: 0.9, max_replicas: 3}", "needs a limit"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(override: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        scenario(override)


@pytest.mark.parametrize(
    "kind", ["vllm_v1", "vllm_v0", "sglang", "tgi", "trtllm", "ksana", "orca", "fastgen"]
)
def test_a_replica_of_any_engine_may_crash_and_leaps_change_nothing(kind: str) -> None:
    changes = (
        "pools.0.replicas=2",
        f"pools.0.scheduler={{kind: {kind}}}",
        "faults.schedule=[{kind: slow, at_s: 0.4, replica: 1, factor: 2}]",
        "faults.crashes={mtbf_s: 2, restart_s: 0.5}",
    )
    leaping, plain = (simulate(scenario(*changes, f"run.leaps={leaps}")) for leaps in (True, False))
    columns = ["scheduled_at", "first_token_at", "finished_at", "output_tokens", "replica"]
    np.testing.assert_allclose(leaping.requests[columns], plain.requests[columns], rtol=1e-9)
    assert leaping.summary()["faults"] == pytest.approx(plain.summary()["faults"])
    assert leaping.summary()["faults"]["crashes"] > 0 and leaping.summary()["unfinished"] == 0
