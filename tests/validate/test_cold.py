"""Cold steps: told from a record of steps by class, or from a silence between tokens without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.sim.validate.cold import ColdStep, cold_gaps, cold_steps, hit_by
from simllm.sim.validate.measured import MeasuredRun, measured_run
from simllm.sim.validate.recorded_steps import read_steps
from simllm.sim.workload.traces.vllm_bench import BenchResult

from .handmade import write_bench, write_steps


def run_of(folder: Path, itls: list[list[float]], start_times: list[float]) -> MeasuredRun:
    """A run whose requests all get their first token after 1 s."""
    path = write_bench(
        folder,
        input_lens=[10] * len(itls),
        output_lens=[len(gaps) + 1 for gaps in itls],
        start_times=start_times,
        ttfts=[1.0] * len(itls),
        latencies=[1.0 + sum(gaps) for gaps in itls],
        cached_tokens=None,
        itls=itls,
    )
    return measured_run(BenchResult(path, None))


def test_a_step_of_over_twenty_times_its_class_s_median_is_cold(tmp_path: Path) -> None:
    # Decodes of 10 ms but one of 210 ms; a prefill of 300 ms, which is what its class takes.
    rows = [
        "0,10000,1,10,",
        "10000,20000,1,11,",
        "20000,30000,1,12,",
        "30000,240000,1,13,",
        "240000,540000,0,0,9:9",
    ]
    (cold,) = cold_steps(read_steps(write_steps(tmp_path, rows)))
    assert (cold.kind, cold.duration_s, cold.typical_s) == (
        "decode",
        pytest.approx(0.21),
        pytest.approx(0.01),
    )
    assert cold.excess_s == pytest.approx(0.2)
    assert cold.started_at == pytest.approx(0.03)


def test_a_silence_of_all_requests_stands_for_a_cold_step(tmp_path: Path) -> None:
    # Gaps of 10 ms; after 100 of them both requests wait 2 s, for the same step.
    stalled = [0.01] * 100 + [2.0] + [0.01] * 100
    (cold,) = cold_gaps(run_of(tmp_path, [stalled, stalled], [0.0, 0.001]))
    assert (cold.kind, cold.duration_s) == ("gap", pytest.approx(2.0))
    assert cold.started_at == pytest.approx(2.0)


def test_a_request_that_waits_while_others_go_on_met_no_cold_step(tmp_path: Path) -> None:
    # It was preempted: the other one gets its tokens all the while.
    preempted, other = [0.01] * 100 + [2.0] + [0.01] * 100, [0.01] * 400
    assert cold_gaps(run_of(tmp_path, [preempted, other], [0.0, 0.0])) == []


def test_without_all_tokens_instants_no_gap_is_cold(tmp_path: Path) -> None:
    run = run_of(tmp_path, [[0.01] * 200 + [3.0]], [0.0])
    assert len(cold_gaps(run)) == 1
    path = write_bench(tmp_path, itls=[[], [0.2] * 5, []])
    assert cold_gaps(measured_run(BenchResult(path, None))) == []


def test_requests_in_the_system_during_a_cold_step_are_hit_by_it(tmp_path: Path) -> None:
    # In the system from 0 to 1.1, from 1.5 to 2.6 and from 3 to 4.1 s.
    run = run_of(tmp_path, [[0.1]] * 3, [0.0, 1.5, 3.0])
    assert hit_by([ColdStep(1.05, 0.6, 0.01, "mixed")], run).tolist() == [True, True, False]
    assert hit_by([ColdStep(2.7, 0.2, 0.01, "mixed")], run).tolist() == [False, False, False]
