"""Replaying a recorded run: settings are taken over or refused by name, and errors are simple ratios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import ToyStepModel

from simllm.errors import ScenarioError, TraceError
from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.step import Chunk
from simllm.sim.validate import mean_absolute, scenario_of, validate_run
from simllm.sim.validate.compare import compare, saturation, statistics
from simllm.sim.validate.policy_check import check_policy
from simllm.sim.validate.step_times import errors_by_class, read_busy_steps
from simllm.sim.workload.traces.vllm_bench import BenchResult

ENGINE: dict[str, Any] = {
    "name": "vllm",
    "version": "0.22.1",
    "gpu": "NVIDIA H200",
    "model": "meta-llama/Llama-3.1-8B",
    "dtype": "bfloat16",
    "num_gpu_blocks": 1000,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 128,
    "max_model_len": 8192,
}
# Three answers: TPOT (2 - 1) / (11 - 1) = 0.1 s, (1.5 - 0.5) / (6 - 1) = 0.2 s, and none for a single token.
BENCH: dict[str, Any] = {
    "date": "2026-11-21",
    "duration": 4.0,
    "arrivals": "poisson",
    "output_throughput": 4.5,
    "request_throughput": 0.75,
    "mean_itl_ms": 120.0,
    "input_lens": [100, 200, 50],
    "output_lens": [11, 6, 1],
    "start_times": [0.0, 1.0, 2.0],
    "ttfts": [1.0, 0.5, 0.3],
    "latencies": [2.0, 1.5, 0.3],
    "cached_tokens": [0, 16, 0],
}


def _write(folder: Path, engine: dict[str, Any] | None = None, **changes: Any) -> Path:
    path = folder / "run.json"
    path.write_text(
        json.dumps({**BENCH, **changes, "engine": {**ENGINE, **(engine or {})}}), encoding="utf-8"
    )
    return path


def _summary(**changes: float) -> dict[str, Any]:
    summary: dict[str, Any] = {"output_throughput": 4.95, "request_throughput": 0.75, "preempted": 2}
    for metric in ("ttft", "tpot", "itl", "e2el"):
        summary |= {f"{name}_{metric}_ms": None for name in ("mean", "median", "p90", "p99")}
    return summary | changes


def test_errors_are_simulated_over_measured_less_one(tmp_path: Path) -> None:
    # mean TTFT (1 + 0.5 + 0.3) / 3 = 0.6 s; mean TPOT (0.1 + 0.2) / 2 = 0.15 s; throughput 4.95 / 4.5
    bench = BenchResult(_write(tmp_path), None)
    summary = _summary(mean_ttft_ms=660.0, mean_tpot_ms=135.0, mean_itl_ms=126.0)
    errors = compare(bench.path, bench, summary, num_hit_tokens=32, waiting_share=0.0)
    assert errors.latency["ttft"] == {"mean": pytest.approx(0.1)}
    assert errors.latency["tpot"] == {"mean": pytest.approx(-0.1)}
    assert errors.latency["itl"] == {"mean": pytest.approx(0.05)}
    assert errors.throughput["output_throughput"] == pytest.approx(0.1)
    assert errors.prefix_hit_tokens == (32, 16)


def test_the_summary_averages_errors_without_their_signs(tmp_path: Path) -> None:
    bench = BenchResult(_write(tmp_path), None)
    runs = [
        compare(bench.path, bench, _summary(mean_ttft_ms=ttft), num_hit_tokens=0, waiting_share=0.0)
        for ttft in (660.0, 480.0)  # +10 % and -20 %
    ]
    assert mean_absolute(runs)["ttft_mean"] == pytest.approx(0.15)


def test_statistics_are_the_mean_and_linear_percentiles() -> None:
    assert statistics(np.array([1.0, 2.0, 6.0])) == pytest.approx(
        {"mean": 3, "p50": 2, "p90": 5.2, "p99": 5.92}
    )


@pytest.mark.parametrize(
    ("share", "is_closed", "verdict"),
    [
        (0.0, False, "below saturation"),
        (0.0, True, "closed loop"),
        (0.2, False, "near saturation"),
        (0.9, True, "saturated"),
    ],
)
def test_the_verdict_follows_the_time_with_requests_waiting(
    share: float, is_closed: bool, verdict: str
) -> None:
    assert saturation(share, is_closed=is_closed) == verdict


def test_the_engine_s_settings_are_taken_over(tmp_path: Path) -> None:
    path = _write(tmp_path, {"block_size": 32, "tensor_parallel_size": 2, "async_scheduling": False})
    pool = scenario_of(BenchResult(path, None)).pools[0]
    assert (pool.device, pool.parallel.tp, pool.kv.block_size) == ("h200-sxm", 2, 32)
    assert (pool.kv.num_gpu_blocks, pool.scheduler.max_num_seqs) == (1000, 128)
    assert not pool.scheduler.async_scheduling


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("pipeline_parallel_size", 2),
        ("enable_expert_parallel", True),
        ("quantization", "fp8"),
        ("mystery", 1),
    ],
)
def test_settings_that_are_not_modelled_are_refused_by_name(
    tmp_path: Path, setting: str, value: object
) -> None:
    with pytest.raises(ScenarioError, match=rf"engine\.{setting}"):
        scenario_of(BenchResult(_write(tmp_path, {setting: value}), None))


def test_a_file_without_an_engine_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps(BENCH), encoding="utf-8")
    with pytest.raises(TraceError, match="no `engine` block"):
        scenario_of(BenchResult(path, None))


def test_a_run_replays_all_its_requests(tmp_path: Path) -> None:
    errors = validate_run(_write(tmp_path)).run
    assert errors.num_requests == 3
    assert errors.prefix_hit_tokens == (0, 16)
    assert set(errors.latency["ttft"]) == {"mean", "p50", "p90", "p99"}


def test_step_times_are_compared_as_sums_while_the_engine_is_busy(tmp_path: Path) -> None:
    # The second and third step begin before the one before has ended; the fourth after a pause.
    path = tmp_path / "steps.csv"
    path.write_text(
        "schedule_start_us,output_done_us,num_decodes,sum_decode_context_tokens,prefill_chunks\n"
        "0,10000,0,0,100:100\n"
        "5000,20000,1,101,\n"
        "15000,50000,1,102,30:40;20:20\n"
        "60000,70000,1,103,\n",
        encoding="utf-8",
    )
    steps = read_busy_steps(path)
    assert [(step.kind, round(step.duration_s, 6)) for step in steps] == [("decode", 0.01), ("mixed", 0.03)]
    assert steps[1].chunks == (Chunk(30, 10), Chunk(20, 0))
    # decode: 8 ms against 10; mixed: 8 ms + 50 tokens x 0.2 ms = 18 ms against 30; together 26 against 40
    errors = errors_by_class(steps, ToyStepModel(base_s=0.008, token_s=0.0002), CudaGraphSizes(()))
    assert errors["decode"].error == pytest.approx(-0.2)
    assert errors["mixed"].error == pytest.approx(-0.4)
    assert errors["all"].error == pytest.approx(-0.35)


def test_a_malformed_step_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(
        "schedule_start_us,output_done_us,num_decodes,sum_decode_context_tokens,prefill_chunks\n0,x,0,0,\n",
        encoding="utf-8",
    )
    with pytest.raises(TraceError, match=r"steps\.csv:2: "):
        read_busy_steps(path)


def test_the_scheduler_is_followed_step_by_step_with_recorded_times(tmp_path: Path) -> None:
    # One request of 100 tokens, three answers of one step each: prefill, then decodes of 101 and 102 tokens.
    bench = _write(
        tmp_path, input_lens=[100], output_lens=[3], start_times=[0.0], ttfts=[0.1], latencies=[0.3]
    )
    path = tmp_path / "steps.csv"
    head = "schedule_start_us,output_done_us,num_decodes,sum_decode_context_tokens,prefill_chunks\n"
    rows = ["2000,12000,0,0,100:100\n", "2500,20000,1,101,\n", "12500,30000,1,102,\n"]
    path.write_text(head + "".join(rows), encoding="utf-8")
    check = check_policy(bench, path)
    assert (check.num_steps, check.num_followed, check.departure) == (3, 3, None)
    path.write_text(head + rows[0] + rows[1] + rows[2].replace("102", "140"), encoding="utf-8")
    check = check_policy(bench, path)
    assert check.num_followed == 2
    assert "recorded [1 decodes of 140 tokens" in check.describe()
