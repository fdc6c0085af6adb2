"""A whole validation, from files of our own making to errors that are known beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simllm.hwmodels.model_config import load_model
from simllm.sim.validate import Validation, summaries, summary_dict, validate_run
from simllm.sim.validate.goals import (
    CLOSED,
    MOE,
    NEAR_SATURATION,
    OPEN,
    UNMEASURED,
    GoalClass,
    classify,
    mean_absolute,
)
from simllm.sim.validate.saturation import verdict

from .handmade import write_bench, write_steps

REQUESTS = 24


def replayed(folder: Path, factor: float = 1.0, name: str = "run.json", **changes: Any) -> Validation:
    """Validates a run whose measured latencies are the simulated ones times `factor`."""
    rng = np.random.default_rng(1)
    plain: dict[str, Any] = {
        "input_lens": rng.integers(50, 900, REQUESTS).tolist(),
        "output_lens": rng.integers(2, 40, REQUESTS).tolist(),
        "start_times": (np.arange(REQUESTS) * 0.05).tolist(),
        "ttfts": [1.0] * REQUESTS,
        "latencies": [2.0] * REQUESTS,
        "itls": None,
        "cached_tokens": [0] * REQUESTS,
        **changes,
    }
    first = validate_run(write_bench(folder, "first.json", **plain))
    throughput = first.compared.simulated_throughput["output_throughput"]
    measured = {
        "ttfts": (first.simulated_ms["ttft"] * factor / 1e3).tolist(),
        "latencies": (first.simulated_ms["e2el"] * factor / 1e3).tolist(),
        "output_throughput": throughput / factor,
    }
    return validate_run(write_bench(folder, name, **{**plain, **measured}))


def test_a_measured_run_that_is_the_simulated_one_has_no_error(tmp_path: Path) -> None:
    flat = replayed(tmp_path).flat_errors()
    for name in ("ttft_mean", "ttft_p50", "tpot_mean", "e2el_p90", "output_throughput"):
        assert flat[name] == pytest.approx(0.0, abs=1e-12)


def test_latencies_a_quarter_longer_are_predicted_a_fifth_too_short(tmp_path: Path) -> None:
    # simulated / (1.25 x simulated) - 1 = -0.2 for every statistic, and 1 / (1 / 1.25) - 1 = +0.25
    run = replayed(tmp_path, 1.25)
    for metric in ("ttft", "tpot", "e2el"):
        assert run.compared.errors[metric] == pytest.approx(
            dict.fromkeys(("mean", "p50", "p90", "p99"), -0.2)
        )
    assert run.compared.throughput_errors["output_throughput"] == pytest.approx(0.25)


def test_the_json_of_a_run_is_read_as_promised(tmp_path: Path) -> None:
    run = replayed(tmp_path, 2.0)
    told = json.loads(json.dumps({"runs": [run.as_dict()], "summary": summary_dict([run])}, allow_nan=False))
    (entry,) = told["runs"]
    assert entry["file"].endswith("run.json")
    assert entry["errors"]["ttft"]["mean"] == pytest.approx(-0.5)
    assert entry["errors"]["e2el"]["p99"] == pytest.approx(-0.5)
    assert entry["errors"]["output_throughput"] == pytest.approx(1.0)
    assert entry["prefix_hit_tokens"] == {"simulated": 0, "measured": 0, "error": 0.0}
    assert entry["num_preemptions"] == {"simulated": 0, "measured": None, "error": None}
    assert told["summary"]["errors"]["tpot_mean"] == pytest.approx(0.5)
    assert told["summary"]["classes"][OPEN.name]["goals"]["tpot_mean"] == 0.02
    assert told["summary"]["classes"][OPEN.name]["is_met"]["tpot_mean"] is False


def test_percentiles_of_few_requests_enter_no_class(tmp_path: Path) -> None:
    run = replayed(tmp_path, 2.0)
    assert "p99" in run.compared.errors["ttft"]
    assert "ttft_p99" not in run.flat_errors()


def test_a_repeated_run_shows_how_far_real_runs_differ(tmp_path: Path) -> None:
    # The second run's latencies are 10 % longer, its throughput is 1 / 1.1 of the first one's.
    runs = [replayed(tmp_path), replayed(tmp_path, 1.1, name="run-again.json")]
    (summary,) = summaries(runs)
    assert summary.floor["ttft_mean"] == pytest.approx(0.1)
    assert summary.floor["output_throughput"] == pytest.approx(1 - 1 / 1.1)
    assert summaries(runs[:1])[0].floor == {}


def test_the_summary_averages_errors_without_their_signs() -> None:
    assert mean_absolute([{"ttft_mean": 0.1}, {"ttft_mean": -0.2, "e2el_mean": 0.4}]) == {
        "ttft_mean": pytest.approx(0.15),
        "e2el_mean": pytest.approx(0.4),
    }


@pytest.mark.parametrize(
    ("model", "num_gpus", "load", "expected"),
    [
        ("llama-3.1-8b", 1, {"is_closed": True}, CLOSED),
        ("llama-3.1-8b", 1, {}, OPEN),
        ("llama-3.1-8b", 4, {"is_closed": True}, UNMEASURED),
        ("llama-3.1-70b", 1, {}, UNMEASURED),
        ("qwen3-32b", 2, {"is_closed": True, "has_stages": True}, UNMEASURED),
        ("qwen3-30b-a3b", 4, {}, MOE),
        ("qwen3-30b-a3b", 1, {"is_near": True}, NEAR_SATURATION),
        ("llama-3.1-8b", 1, {"is_closed": True, "has_preempted": True}, NEAR_SATURATION),
    ],
)
def test_a_run_s_class_follows_from_the_run(
    model: str, num_gpus: int, load: dict[str, bool], expected: GoalClass
) -> None:
    flags = {"has_stages": False, "is_closed": False, "is_near": False, "has_preempted": False, **load}
    assert classify(load_model(model), num_gpus, **flags) is expected


@pytest.mark.parametrize(
    ("load", "waiting_share", "told"),
    [
        (0.5, 0.0, "below saturation"),
        (0.93, 0.3, "near saturation"),
        (1.2, 0.9, "saturated"),
        (None, 0.2, "closed loop"),
        (None, 0.9, "closed loop, more clients than slots"),
    ],
)
def test_the_verdict_follows_the_load(load: float | None, waiting_share: float, told: str) -> None:
    assert verdict(load, waiting_share) == told


def test_an_overload_is_told_from_an_idle_engine(tmp_path: Path) -> None:
    few = replayed(tmp_path, start_times=(np.arange(REQUESTS) * 5.0).tolist())
    many = replayed(tmp_path, start_times=(np.arange(REQUESTS) * 1e-3).tolist())
    assert few.saturation.load is not None and many.saturation.load is not None
    assert few.saturation.load < 0.2
    assert (many.saturation.verdict, many.goal_class) == ("saturated", NEAR_SATURATION)
    assert few.goal_class is OPEN


def test_a_cold_step_of_the_record_is_listed_and_its_requests_left_out(tmp_path: Path) -> None:
    rows = [f"{1000 * n},{1000 * n + 1100},1,{n + 1}," for n in range(20)] + ["20000,900000,1,30,"]
    bench = write_bench(tmp_path)
    run = validate_run(bench, steps_path=write_steps(tmp_path, rows))
    assert [step.kind for step in run.cold] == ["decode"]
    assert run.compared.num_compared == 2  # the first request is in the system until 2 s
    assert any("cold decode of 0.8" in note for note in run.notes)
    assert run.as_dict()["cold_steps"][0]["duration_s"] == pytest.approx(0.8799, abs=1e-3)
