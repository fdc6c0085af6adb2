"""Differences between runs: exact where they can be, with intervals that hold what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.outcome.report.differences import METRICS, STATISTICS, differences, same_requests
from simllm.sim.outcome.report.differences import _Sample as Sample
from simllm.sim.outcome.report.run_folder import Run, read_runs

from .conftest import Simulated


def run_of(name: str, values_ms: np.ndarray, prompts: int = 10) -> Run:
    """A run that only has latencies, the same for every metric."""
    size = len(values_ms)
    columns = {f"{metric}_ms": values_ms for metric in METRICS}
    sizes = dict.fromkeys(("session_id", "turn", "requested_output_tokens"), np.zeros(size))
    frame = pd.DataFrame({**columns, **sizes, "prompt_tokens": prompts, "status": "finished"})
    told = {"mean": np.mean, "p50": np.median, "p99": lambda values: np.percentile(values, 99)}
    summary = {
        f"{name}_{metric}_ms": float(told[name](values_ms)) for metric in METRICS for name in STATISTICS
    }
    return Run(name, summary, frame, None, None)


def test_a_shift_of_the_same_requests_is_sure_and_exact() -> None:
    base = np.random.default_rng(1).exponential(100, 400)
    for found in differences([run_of("a", base), run_of("b", base + 7)]):
        assert found.is_paired
        assert (found.difference_ms, found.low_ms, found.high_ms) == pytest.approx((7, 7, 7))
        assert found.is_sure


def test_other_requests_are_drawn_apart_and_chance_is_not_sure() -> None:
    rng = np.random.default_rng(2)
    runs = [run_of("a", rng.exponential(100, 2000)), run_of("b", rng.exponential(100, 2000), prompts=11)]
    mean = differences(runs)[0]
    assert not mean.is_paired
    assert not mean.is_sure
    # The deviation of the difference of two means of 2000 exponential values is 100 sqrt(2/2000) = 3.2 ms.
    assert mean.low_ms is not None
    assert mean.high_ms is not None
    assert mean.high_ms - mean.low_ms == pytest.approx(2 * 1.96 * 3.16, rel=0.25)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(20):
        runs = [run_of("a", rng.exponential(100, 400)), run_of("b", rng.exponential(110, 400), prompts=11)]
        mean = differences(runs)[0]
        assert mean.low_ms is not None
        assert mean.high_ms is not None
        held += mean.low_ms <= 10 <= mean.high_ms
    assert held >= 16  # 95 % of 20 are 19; 15 or fewer happen once in four hundred times


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=60), st.integers(0, 3))
def test_a_resample_has_numpy_s_mean_and_percentiles(values: list[float], times: int) -> None:
    frame = run_of("a", np.array(values)).requests
    sample = Sample(frame, "ttft")
    found = sample.statistics(np.full(sample.num_stretches, times))
    if not times:
        assert np.isnan(found).all()
        return
    repeated = np.repeat(values, times)
    wanted = [repeated.mean(), *np.percentile(repeated, [50, 99])]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


def test_a_single_request_tells_no_interval() -> None:
    found = differences([run_of("a", np.array([1.0])), run_of("b", np.array([2.0]))])
    assert [one.difference_ms for one in found] == [1.0] * 9
    assert {one.low_ms for one in found} == {None}


def test_runs_of_one_workload_serve_the_same_requests(simulated: Simulated) -> None:
    folders: list[Path] = [simulated("slow", "seed=1"), simulated("fast", "seed=1", "pools.0.replicas=2")]
    slow, fast = read_runs(folders)
    assert same_requests(slow, fast)
    (other,) = read_runs([simulated("other", "seed=2")])
    assert not same_requests(slow, other)
