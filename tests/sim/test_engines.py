"""Whole runs under each engine's scheduler, on the same small scenario with hardly any KV cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from simllm.sim.deployment import deploy
from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate

from .small import scenario

# 1,920 tokens: an answer may take half of them.
TIGHT = ("pools.0.kv.num_gpu_blocks=121", "workload.arrivals={kind: burst}")
SWAPPING = [
    "{kind: vllm_v0, preemption_mode: swap}",
    "{kind: ksana, launch_block_threshold: 0, swapin_block_threshold: 0}",
]
ENGINES = [
    *SWAPPING,
    "{kind: vllm_v0}",
    "{kind: vllm_v0, enable_chunked_prefill: true}",
    "{kind: ksana, preempt_mode: recompute, launch_block_threshold: 0}",
    "{kind: fastgen}",
]
# 16 tokens of Llama-3.1-8B.
BLOCK_BYTES = 16 * 131_072


def run(engine: str, *overrides: str) -> Result:
    blocks = ("pools.0.kv.block_size=16",)  # for all of them, FastGen's own are of 128 tokens
    return simulate(scenario(*TIGHT, *blocks, f"pools.0.scheduler={engine}", *overrides))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_request_ends_and_leaps_change_nothing(engine: str) -> None:
    leaping, plain = run(engine).summary(), run(engine, "run.leaps=false").summary()
    assert leaping["completed"] == 40
    for key in ("mean_ttft_ms", "mean_tpot_ms", "p99_itl_ms", "p99_e2el_ms", "num_preemptions"):
        assert leaping[key] == pytest.approx(plain[key], rel=1e-9)


def test_prompts_in_part_that_hold_all_blocks_wait_until_they_are_dropped() -> None:
    # KsanaLLM looks ahead one chunk only, and takes blocks back from prompts only for a decode: without one
    # nothing moves. With more blocks than the step's budget fills with chunks all is well.
    engine = "{kind: ksana, split_fuse_token_num: 256}"
    stuck = run(engine).summary()
    assert (stuck["completed"], stuck["rejections"]) == (0, {"waiting_timeout": 40})
    assert run(engine, "pools.0.kv.num_gpu_blocks=700").summary()["completed"] == 40


@pytest.mark.parametrize("engine", SWAPPING)
def test_what_is_swapped_out_comes_back_and_is_not_computed_again(engine: str) -> None:
    result = run(engine)
    links = {link["link"]: link["num_bytes"] for link in result.summary()["links"]}
    out, back = links["pcie.0.device_to_host"], links["pcie.0.host_to_device"]
    assert out == pytest.approx(back)
    assert out > 0
    assert out / BLOCK_BYTES == pytest.approx(round(out / BLOCK_BYTES))
    assert result.requests.recomputed_tokens.sum() == 0


def test_what_scheduling_costs_is_the_engines_own() -> None:
    # 2.8 ms of preparing and 1 ms of scheduling in each step of V0, all in the open.
    v0, ksana = (run(engine, "pools.0.kv.num_gpu_blocks=4000").summary() for engine in ENGINES[1:3][::-1])
    assert v0["median_itl_ms"] - ksana["median_itl_ms"] > 2.4


@pytest.mark.parametrize(
    ("engine", "block_size", "attention", "largest_graph", "captures_prompts"),
    [("vllm_v0", 16, "fa2", 256, False), ("ksana", 16, "fa3", 0, True), ("fastgen", 128, "fa2", 0, True)],
)
def test_engines_bring_their_own_blocks_attention_and_graphs(
    engine: str, block_size: int, attention: str, largest_graph: int, captures_prompts: bool, tmp_path: Path
) -> None:
    pool = scenario(f"pools.0.scheduler={{kind: {engine}}}").pools[0]
    deployment = deploy(pool, tmp_path)
    assert (pool.kv.block_size, pool.kv.enable_prefix_caching) == (block_size, False)
    assert (pool.attention_impl, deployment.graphs.largest) == (attention, largest_graph)
    assert deployment.graphs.decodes_only is not captures_prompts


def test_ksana_shares_prefixes_where_it_is_asked_to_but_not_on_ascend() -> None:
    shared = "workload.shared_prefix={num_prefixes: 1, prefix_tokens: {kind: fixed, tokens: 320}}"
    asked = (shared, "pools.0.kv.enable_prefix_caching=true")
    engine = "{kind: ksana, max_step_tokens: 8192}"
    assert run(engine, *asked, "pools.0.kv.num_gpu_blocks=4000").summary()["cached_tokens"] > 0
    npu = run(engine, *asked, "pools.0.kv.num_gpu_blocks=4000", "pools.0.device=ascend-910b")
    assert npu.summary()["cached_tokens"] == 0


@pytest.mark.parametrize("engine", ["{kind: vllm_v0}", SWAPPING[1], "{kind: fastgen}"])
def test_samples_of_a_request_are_scheduled_each_by_itself(engine: str) -> None:
    samples = ("workload.num_samples=3", "pools.0.kv.enable_prefix_caching=true")
    leaping, plain = run(engine, *samples).summary(), run(engine, *samples, "run.leaps=false").summary()
    assert leaping["completed"] == 40
    assert leaping["p99_e2el_ms"] == pytest.approx(plain["p99_e2el_ms"], rel=1e-9)


def test_samples_share_their_prompt_under_v0_with_prefix_caching() -> None:
    # As copy on write does: all but the first of three find the prompt's full blocks.
    summary = run(
        "{kind: vllm_v0}",
        "workload.num_samples=3",
        "pools.0.kv.enable_prefix_caching=true",
        "pools.0.kv.num_gpu_blocks=9000",
    ).summary()
    assert summary["kv"][0]["prefix_hit_tokens"] > 0.6 * summary["kv"][0]["prefix_query_tokens"]


def test_v0_replays_graphs_for_decodes_and_launches_prompts_one_by_one() -> None:
    steps = run("{kind: vllm_v0}").steps
    prompts, decodes = steps[steps.num_prefill_tokens > 0], steps[steps.num_prefill_tokens == 0]
    assert (prompts.num_padded_tokens == prompts.num_prefill_tokens).all()
    assert (prompts.num_decodes == 0).all()
    assert set(decodes.num_padded_tokens) <= {1, 2, 4, 8, 16, 24, 32, 40}
