"""The summary of the run in handmade.py, whose numbers are worked out here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simllm.sim.outcome.meta import Slo
from simllm.sim.outcome.results import Result
from simllm.sim.workload.demand import Demand
from simllm.sim.world.gaps import RELATIVE_ERROR
from simllm.sim.world.recorder import Recorder, Status

from .handmade import make_demand, make_meta, make_recorder, make_totals

# Source: vLLM vllm/benchmarks/serve.py, the result of `benchmark` (scalars of a text generation run).
VLLM_SCALARS = [
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "request_goodput",
    "output_throughput",
    "total_token_throughput",
    "max_output_tokens_per_s",
    "max_concurrent_requests",
]
VLLM_STATISTICS = ["mean", "median", "std", "p50", "p90", "p95", "p99"]
LATENCIES = [
    f"{statistic}_{metric}_ms"
    for metric in ("ttft", "tpot", "itl", "e2el", "ttfo", "queue")
    for statistic in VLLM_STATISTICS
]


def test_vllms_scalars_are_there_by_their_own_names(result: Result) -> None:
    assert {*VLLM_SCALARS, *LATENCIES} <= set(result.summary())


def test_throughputs_divide_totals_of_completed_requests_by_first_arrival_to_last_finish(
    result: Result,
) -> None:
    # 2.02 s from 0.0 on; prompts 32 + 16 + 64 = 112, answers 3 + 1 + 5 = 9; the rejected one counts for none
    summary = result.summary()
    assert summary["duration"] == pytest.approx(2.02)
    assert (summary["completed"], summary["failed"]) == (3, 1)
    assert (summary["total_input_tokens"], summary["total_output_tokens"]) == (112, 9)
    assert summary["request_throughput"] == pytest.approx(3 / 2.02)
    assert summary["output_throughput"] == pytest.approx(9 / 2.02)
    assert summary["total_token_throughput"] == pytest.approx(121 / 2.02)


def test_ttft_statistics_are_those_of_400_300_and_500_ms(result: Result) -> None:
    # std: distances 0, 100, 100 -> sqrt(20000 / 3); p99 of three: rank 1.98 -> 400 + 0.98 * 100
    summary = result.summary()
    assert summary["mean_ttft_ms"] == pytest.approx(400)
    assert summary["median_ttft_ms"] == summary["p50_ttft_ms"] == pytest.approx(400)
    assert summary["std_ttft_ms"] == pytest.approx(math.sqrt(20_000 / 3))
    assert summary["p99_ttft_ms"] == pytest.approx(498)


def test_tpot_leaves_out_the_request_with_one_token(result: Result) -> None:
    # r0: (800 - 400) / 2 = 200; r2: (1020 - 500) / 4 = 130; mean 165
    summary = result.summary()
    assert summary["mean_tpot_ms"] == pytest.approx(165)
    assert summary["std_tpot_ms"] == pytest.approx(35)
    assert summary["output_tokens_per_s_per_user"] == pytest.approx(1000 / 165)


def test_e2el_and_queue_follow_from_the_instants(result: Result) -> None:
    # 800, 300, 1020 ms; everyone was scheduled on arrival
    summary = result.summary()
    assert summary["mean_e2el_ms"] == pytest.approx(2120 / 3)
    assert summary["median_e2el_ms"] == pytest.approx(800)
    assert summary["p99_queue_ms"] == 0.0


def test_itl_pools_the_gaps_of_all_requests(result: Result) -> None:
    # 100, 300 and 100, 120, 140, 160 ms: mean 920 / 6, median between 120 and 140
    summary = result.summary()
    assert summary["mean_itl_ms"] == pytest.approx(920 / 6)
    assert summary["median_itl_ms"] == pytest.approx(130, rel=RELATIVE_ERROR)
    assert summary["p99_itl_ms"] == pytest.approx(np.percentile([100, 300, 100, 120, 140, 160], 99), rel=1e-3)


def test_busiest_second_and_most_concurrent_requests(result: Result) -> None:
    # tokens at 0.4 0.5 0.8 0.8 | 1.5 1.60 1.72 1.86 | 2.02; r0 and r1 overlap from 0.5 to 0.8
    summary = result.summary()
    assert summary["max_output_tokens_per_s"] == 4
    assert summary["max_concurrent_requests"] == 2


@pytest.mark.parametrize(
    ("slo", "num_good"),
    [
        (Slo(ttft_ms=450), 2),  # r0 400, r1 300; r2 500 is late
        (Slo(ttft_ms=450, tpot_ms=150), 1),  # r0 has 200; r1 has one token, its TPOT counts as 0
        (Slo(e2el_ms=200), 0),
    ],
)
def test_goodput_counts_requests_within_every_limit(
    build: Callable[..., Result], slo: Slo, num_good: int
) -> None:
    result = build(slo=slo)
    assert result.summary()["request_goodput"] == pytest.approx(num_good / 2.02)
    assert result.requests["slo_met"].sum() == num_good


def test_goodput_is_null_without_an_objective(result: Result) -> None:
    assert result.summary()["request_goodput"] is None
    assert result.summary()["slo"] is None


def test_utilisation_relates_work_to_peak_over_the_whole_span(result: Result) -> None:
    # 202 TFLOP / (1000 TFLOP/s * 2.02 s) = 0.1; 1.01 TB / (2 TB/s * 2.02 s) = 0.25; busy 1.82 of 2.02 s
    summary = result.summary()
    assert summary["mfu"] == pytest.approx(0.1)
    assert summary["mbu"] == pytest.approx(0.25)
    assert summary["busy_share"] == pytest.approx(1.82 / 2.02)
    assert sum(summary["term_share"].values()) == pytest.approx(summary["busy_share"])
    assert summary["replicas"][0]["term_share"] == summary["term_share"]


def test_unknown_peak_makes_utilisation_unknown() -> None:
    pool = make_meta().pools[0]
    meta = replace(make_meta(), pools=(replace(pool, peak_flops_per_s=None),))
    summary = Result(make_recorder(), make_demand(), meta).summary()
    assert summary["mfu"] is None
    assert summary["mbu"] == pytest.approx(0.25)


def test_mishaps_are_counted_by_kind() -> None:
    recorder = make_recorder()
    recorder.num_preemptions[0] = 3
    recorder.recomputed_tokens[0] = 34
    recorder.output_tokens[2] = 4  # asked for 5: the context limit cut it
    recorder.status[1] = Status.RUNNING
    recorder.finished_at[1] = math.nan
    summary = Result(recorder, make_demand(), make_meta()).summary()
    assert (summary["completed"], summary["failed"], summary["unfinished"]) == (2, 2, 1)
    assert (summary["rejected"], summary["unservable"]) == (1, 1)
    assert summary["rejections"] == {"exceeds_kv_cache": 1}
    assert (summary["preempted"], summary["num_preemptions"], summary["recomputed_tokens"]) == (1, 3, 34)
    assert summary["truncated"] == 1


def test_cache_totals_and_the_most_blocks_in_use_are_reported_by_replica(result: Result) -> None:
    # the leap starts with 5 blocks; growth (0, 1, 0) over its three later steps
    (kv,) = result.summary()["kv"]
    assert (kv["num_blocks"], kv["max_used_blocks"]) == (100, 6)
    assert kv["prefix_misses"] == {"no_shared_prefix": 96}
    assert result.summary()["prefix_cache_hit_rate"] == pytest.approx(16 / 112)


def test_without_steps_only_what_needs_them_is_null(result: Result, build: Callable[..., Result]) -> None:
    summary, bare = result.summary(), build(record_steps=False).summary()
    differing = {key for key in summary if summary[key] != bare[key]}
    assert differing == {"max_output_tokens_per_s", "kv", "kv_waste"}
    assert bare["max_output_tokens_per_s"] is None
    assert bare["kv"][0]["max_used_blocks"] is None
    assert bare["kv_waste"] is None


@pytest.mark.parametrize("num_requests", [0, 3])
def test_a_run_in_which_nothing_finished_has_nulls_and_valid_json(num_requests: int) -> None:
    recorder = Recorder(num_requests, record_steps=True)
    recorder.replicas.append(make_totals())
    ones = np.ones(num_requests, dtype=np.int64)
    result = Result(recorder, Demand(np.zeros(num_requests), ones, ones), make_meta(Slo(ttft_ms=1)))
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert (summary["completed"], summary["failed"]) == (0, num_requests)
    nulls = ["duration", "request_throughput", "request_goodput", "mfu", "busy_share", *LATENCIES]
    assert [key for key in nulls if summary[key] is not None] == []


def test_a_summary_belongs_to_its_reader(result: Result) -> None:
    result.summary()["kv"].clear()
    assert len(result.summary()["kv"]) == 1


def test_every_metric_has_a_definition(result: Result) -> None:
    summary = result.summary()
    head = {"schema_version", "simllm_version", "scenario_name", "scenario_sha256", "seed", "model"}
    records = {"profile", "pools", "slo", "replicas", "kv", "definitions", "notes"}
    explained = {"rejections": "rejected", "num_preemptions": "preempted"}
    for key in set(summary) - head - records - set(LATENCIES):
        assert explained.get(key, key) in summary["definitions"]
    assert {key.removeprefix("mean_") for key in LATENCIES if key.startswith("mean_")} <= set(
        summary["definitions"]
    )
