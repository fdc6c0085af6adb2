"""Errors of a run: ratios of statistics that are worked out on paper, see `outcome/handmade.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outcome.handmade import make_result

from simllm.errors import TraceError
from simllm.sim.validate.cold import ColdStep
from simllm.sim.validate.compare import Compared, Count, compare
from simllm.sim.validate.measured import MeasuredRun, measured_run, statistics
from simllm.sim.workload.traces.vllm_bench import BenchResult

from .handmade import write_bench

# Simulated: TTFT 0.4, 0.3, 0.5 s; E2EL 0.8, 0.3, 1.02 s; TPOT 0.2, -, 0.13 s; the fourth is rejected.
# 9 tokens and 3 requests in 2.02 s; gaps 0.1, 0.3, 0.10, 0.12, 0.14, 0.16 s: mean 0.92 / 6 s.
MEASURED: dict[str, Any] = {
    "duration": 4.04,
    "output_throughput": 5.0,
    "request_throughput": 1.5,
    "start_times": [0.0, 0.5, 1.0, 1.5],
    "input_lens": [32, 16, 64, 9000],
    "output_lens": [3, 1, 5, 9],
    "ttfts": [0.5, 0.5, 0.5, 9.0],
    "latencies": [0.9, 0.5, 1.7, 9.9],
    "itls": [[0.2, 0.2], [], [0.3] * 4, [0.1] * 8],
    "cached_tokens": [0, 0, 20, 0],
}


def compared(folder: Path, cold: list[ColdStep] | None = None, **changes: Any) -> Compared:
    run = measured(folder, **changes)
    return compare(run, make_result(), cold or [], num_preemptions=0, is_closed=cold is not None)


def measured(folder: Path, **changes: Any) -> MeasuredRun:
    return measured_run(BenchResult(write_bench(folder, **{**MEASURED, **changes}), None))


def test_errors_are_simulated_over_measured_less_one(tmp_path: Path) -> None:
    errors = compared(tmp_path).errors
    # TTFT: (0.4 + 0.3 + 0.5) / 3 = 0.4 s against 0.5; median 0.4 against 0.5
    assert errors["ttft"]["mean"] == pytest.approx(-0.2)
    assert errors["ttft"]["p50"] == pytest.approx(-0.2)
    # TPOT: (0.2 + 0.13) / 2 = 0.165 s against (0.2 + 0.3) / 2 = 0.25
    assert errors["tpot"]["mean"] == pytest.approx(0.165 / 0.25 - 1)
    # E2EL: (0.8 + 0.3 + 1.02) / 3 against (0.9 + 0.5 + 1.7) / 3
    assert errors["e2el"]["mean"] == pytest.approx(2.12 / 3.1 - 1)


def test_a_request_that_the_simulation_turned_away_counts_on_neither_side(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert (found.num_requests, found.num_compared) == (4, 3)
    assert found.measured["ttft"]["mean"] == pytest.approx(500.0)


def test_throughputs_are_those_of_the_whole_run(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert found.throughput_errors["output_throughput"] == pytest.approx(9 / 2.02 / 5.0 - 1)
    assert found.throughput_errors["request_throughput"] == pytest.approx(3 / 2.02 / 1.5 - 1)


def test_hit_tokens_and_preemptions_have_errors_where_they_were_measured(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert (found.prefix_hit_tokens, found.prefix_hit_tokens.error) == (Count(16, 20), pytest.approx(-0.2))
    assert Count(3, None).error is None
    assert Count(3, 0).error is None
    assert Count(0, 0).error == 0.0


def test_a_request_that_a_cold_step_hit_counts_on_neither_side(tmp_path: Path) -> None:
    # From 0.1 to 0.6 s: the first request, and the second, which was sent at 0.5 s.
    found = compared(tmp_path, [ColdStep(0.1, 0.5, 0.01, "decode")])
    assert found.num_compared == 1
    assert found.errors["ttft"]["mean"] == pytest.approx(0.5 / 0.5 - 1)
    assert found.errors["e2el"]["mean"] == pytest.approx(1.02 / 1.7 - 1)
    # The third request's own gaps are 0.10, 0.12, 0.14, 0.16 s, mean 0.13, against 0.3.
    assert found.errors["itl"]["mean"] == pytest.approx(0.13 / 0.3 - 1)


def test_if_a_cold_step_hit_all_requests_they_count_without_it(tmp_path: Path) -> None:
    # From 1.55 to 3.05 s, 1.4 s too long. All were sent before, and only the fourth, sent at 1.5 s, got its
    # first token after it; all four got their last token later than that.
    late = [9.0, 9.0, 9.0, 9.9]
    found = compared(tmp_path, [ColdStep(1.55, 1.5, 0.1, "mixed")], latencies=late, itls=None)
    assert found.num_compared == 3  # the simulation turned the fourth away
    assert found.measured["ttft"]["mean"] == pytest.approx(500.0)
    assert found.measured["e2el"]["mean"] == pytest.approx(9000.0 - 1400.0)


def test_a_closed_loop_is_shorter_by_what_a_cold_step_took_too_long(tmp_path: Path) -> None:
    # 2.02 of the 4.04 s are the stall: without it twice the throughput was measured.
    found = compared(tmp_path, [ColdStep(0.1, 2.03, 0.01, "decode")])
    assert found.measured_throughput["output_throughput"] == pytest.approx(10.0)


def test_gaps_that_a_file_leaves_out_are_taken_from_its_scalars_in_milliseconds(tmp_path: Path) -> None:
    itls = [[0.2, 0.2], [], [], [0.1] * 8]
    run = measured(tmp_path, itls=itls, mean_itl_ms=230.0, median_itl_ms=150.0)
    assert run.itls is None
    assert run.scalar_itl == {"mean": 230.0, "p50": 150.0}


def test_answers_of_older_versions_last_as_long_as_their_gaps(tmp_path: Path) -> None:
    run = measured(tmp_path, latencies=None)
    np.testing.assert_allclose(run.e2el_s, [0.5 + 0.4, 0.5, 0.5 + 1.2, 9.0 + 0.8])
    with pytest.raises(TraceError, match="neither `latencies` nor `itls`"):
        measured(tmp_path, latencies=None, itls=None)


def test_open_runs_are_put_in_the_order_in_which_the_replay_sends_them(tmp_path: Path) -> None:
    run = measured(tmp_path, start_times=[1.0, 0.5, 0.0, 1.5])
    assert run.ttft_s.tolist() == [0.5, 0.5, 0.5, 9.0]
    assert run.output_tokens.tolist() == [5, 1, 3, 9]


@pytest.mark.parametrize(
    ("name", "value"), [("ttfts", ["x"] * 4), ("duration", 0), ("output_throughput", None)]
)
def test_what_is_no_number_is_said_by_name(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(TraceError, match=name):
        measured(tmp_path, **{name: value})


def test_statistics_are_the_mean_and_linear_percentiles_without_the_nan() -> None:
    values = np.array([1.0, 2.0, np.nan, 6.0])
    assert statistics(values) == pytest.approx({"mean": 3, "p50": 2, "p90": 5.2, "p99": 5.92})
    assert statistics(np.array([np.nan])) == {}
