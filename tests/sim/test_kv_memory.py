"""Layouts, compression and samples of a whole run: what a scenario asks for is what its output tells."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simllm.errors import InfeasibleError, ScenarioError
from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate
from simllm.sim.scenario import load_scenario

BUDDY = "pools.0.kv.layout={kind: contiguous, allocator: buddy, reserve: pow2}"


def run(scenario: str, *overrides: str) -> Result:
    changed, folder = load_scenario(scenario, ("workload.num_requests=60", *overrides))
    return simulate(changed, base_dir=folder)


def test_a_contiguous_layout_serves_all_and_shows_what_it_reserves() -> None:
    result = run("10-kv-waste")
    summary, kv = result.summary(), result.kv
    assert summary["completed"] == 60
    assert summary["kv"][0]["block_size"] == 1
    # 2,048 slots for each request that runs
    held = kv["held_tokens"].to_numpy()
    assert set(np.unique(held % 2048)) == {0.0}
    assert (kv["filled_tokens"] <= held + 1e-6).all()
    shares = summary["kv_waste"]
    assert sum(
        shares[f"{kind}_share"] for kind in ("useful", "reserved", "internal", "external")
    ) == pytest.approx(1)


def test_compaction_closes_holes_and_admits_more() -> None:
    oracle = ("pools.0.kv.layout={kind: contiguous, reserve: oracle, compaction: %s}",)
    loose, tight = (
        run("10-kv-waste", oracle[0] % flag, "workload.arrivals={kind: burst}") for flag in ("false", "true")
    )
    assert tight.summary()["kv_waste"]["external_share"] < loose.summary()["kv_waste"]["external_share"]
    assert tight.summary()["duration"] < loose.summary()["duration"]


def test_a_model_length_beyond_every_region_is_refused_before_anything_runs() -> None:
    with pytest.raises(InfeasibleError, match=r"lower scheduler\.max_model_len"):
        run("10-kv-waste", "pools.0.kv.num_gpu_blocks=100")


def test_what_the_user_knows_of_accuracy_is_repeated() -> None:
    settings = ("kv.dtype=fp8", "kv.accuracy_note=MMLU -0.2", "weight_dtype=int4", "accuracy_note=MMLU -0.6")
    notes = run("01-first-run", *(f"pools.0.{setting}" for setting in settings)).summary()["notes"]
    assert notes == [
        "accuracy of pool main, weights: MMLU -0.6",
        "accuracy of pool main, KV cache: MMLU -0.2",
    ]


def test_half_the_bytes_hold_twice_the_tokens() -> None:
    whole, half = (
        run("04-long-reasoning", f"pools.0.kv.dtype={dtype}").summary() for dtype in ("bf16", "fp8")
    )
    assert half["kv"][0]["num_blocks"] == pytest.approx(2 * whole["kv"][0]["num_blocks"], rel=1e-3)


def test_beams_need_a_scheduler_that_searches() -> None:
    with pytest.raises(ScenarioError, match=r"scheduler\.kind: schedules no beam search: take vllm_v0"):
        run("01-first-run", "workload.beam_width=4")


def test_samples_are_one_row_with_all_their_tokens_and_the_tpot_of_one() -> None:
    result = run("12-parallel-samples")
    rows = result.requests
    assert (rows["num_samples"] == 4).all()
    assert (rows["output_tokens"] == 4 * rows["requested_output_tokens"]).all()
    assert result.summary()["truncated"] == 0
    paces = (rows["e2el_ms"] - rows["ttft_ms"]) / (rows["requested_output_tokens"] - 1)
    np.testing.assert_allclose(rows["tpot_ms"], paces)
    json.dumps(result.summary(), allow_nan=False)
