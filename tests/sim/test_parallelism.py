"""Pipeline stages and shared experts in whole runs: what they cost, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simllm.errors import InfeasibleError, ScenarioError
from simllm.sim.deployment import deploy
from simllm.sim.pool import PoolConfig
from simllm.sim.run import play, prepare, simulate_prepared
from simllm.sim.scenario import Scenario, parse_scenario


def scenario(num_requests: int = 60, *, leaps: bool = True, rate: float = 20.0, **pool: object) -> Scenario:
    return parse_scenario(
        {
            "name": "stages",
            "workload": {
                "kind": "synthetic",
                "num_requests": num_requests,
                "arrivals": {"kind": "poisson", "request_rate": rate},
                "prompt_tokens": {"kind": "uniform", "min_tokens": 16, "max_tokens": 3000},
                "output_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 80},
            },
            "run": {"leaps": leaps},
            "pools": [{"model": "llama-3.1-8b", "device": "h200-sxm", **pool}],
        }
    )


def vllm(*, is_async: bool, **settings: object) -> dict[str, object]:
    budget = {"max_num_batched_tokens": 2048, "max_num_seqs": 64}
    return {"kind": "vllm_v1", "async_scheduling": is_async, **budget, **settings}


@pytest.mark.parametrize("parallel", [{"pp": 2}, {"pp": 2, "tp": 2}])
def test_leaps_over_stages_give_the_same_requests_as_single_steps(parallel: dict[str, int]) -> None:
    options = {"parallel": parallel, "scheduler": vllm(is_async=True)}
    leaping, plain = (play(prepare(scenario(leaps=leaps, **options), Path())) for leaps in (True, False))
    np.testing.assert_allclose(leaping.finished_at, plain.finished_at, rtol=1e-9)
    np.testing.assert_allclose(leaping.first_token_at, plain.first_token_at, rtol=1e-9)
    # The clock that decodes leave behind is the same but for the order of sums.
    assert leaping.replicas[0].bubble_share == pytest.approx(plain.replicas[0].bubble_share, rel=1e-6)


@pytest.mark.parametrize("num_blocks", [None, 700])
@pytest.mark.parametrize("pp", [2, 4])
def test_gaps_of_micro_batches_add_up_to_the_time_between_first_and_last_tokens(
    pp: int, num_blocks: int | None
) -> None:
    kv = {} if num_blocks is None else {"num_gpu_blocks": num_blocks}
    options = {"parallel": {"pp": pp}, "scheduler": vllm(is_async=False), "kv": kv}
    record = play(prepare(scenario(rate=200.0, **options), Path()))
    finished, first = np.array(record.finished_at), np.array(record.first_token_at)
    assert (sum(record.num_preemptions) > 0) == (num_blocks is not None)
    assert record.gaps.count == sum(record.output_tokens) - len(finished)
    assert record.gaps.mean_s() * record.gaps.count == pytest.approx(
        float((finished - first).sum()), rel=1e-9
    )
    totals = record.replicas[0]
    assert sum(totals.term_s.values()) == pytest.approx(totals.busy_s)
    assert totals.busy_s <= finished.max()


def test_stages_in_turn_leave_gpus_idle_and_micro_batches_fill_them() -> None:
    shares = {
        is_async: play(
            prepare(scenario(rate=200.0, parallel={"pp": 4}, scheduler=vllm(is_async=is_async)), Path())
        )
        .replicas[0]
        .bubble_share
        for is_async in (True, False)
    }
    # One of four stages computes at a time where the first one waits for the last one's tokens.
    assert shares[True] == pytest.approx(0.75, abs=0.02)
    assert shares[False] is not None
    assert shares[False] < 0.4


def test_the_summary_has_bubbles_only_with_stages() -> None:
    staged = simulate_prepared(prepare(scenario(parallel={"pp": 2}), Path()))
    assert staged.summary()["bubble_share"] == pytest.approx(0.5, abs=0.02)
    assert simulate_prepared(prepare(scenario(), Path())).summary()["bubble_share"] is None


def test_kv_blocks_are_those_of_the_fullest_stage() -> None:
    # 32 layers on three stages are 11, 11 and 10 (a remainder goes before the last); embeddings are on the
    # first, the lm_head on the last. The first stage has the most weights, and as many layers of KV as any.
    budget = deploy(pool(parallel={"pp": 3}), Path()).budget
    assert budget.label == "llama-3.1-8b on h200-sxm, stage 1 of 3"
    whole = deploy(pool(), Path()).budget
    assert budget.block_bytes == pytest.approx(whole.block_bytes * 11 / 32)
    assert budget.num_gpu_blocks > 2.9 * whole.num_gpu_blocks


def pool(**settings: object) -> PoolConfig:
    return PoolConfig.model_validate({"model": "llama-3.1-8b", "device": "h200-sxm", **settings})


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (
            {"parallel": {"pp": 2}, "scheduler": {"kind": "sglang"}},
            r"parallel\.pp: sglang is modelled with one",
        ),
        (
            {"parallel": {"pp": 2}, "scheduler": {"kind": "ranked", "async_scheduling": False}},
            r"parallel\.pp: needs async_scheduling: true",
        ),
        ({"parallel": {"pp": 33}}, "has 32 layers, fewer than pp=33 stages"),
        ({"parallel": {"tp": 2, "ep": 2}}, "has no experts to share out over ep=2"),
        ({"model": "qwen3-30b-a3b", "parallel": {"tp": 2, "ep": 4}}, "ep must be 1 or tp x dp = 2"),
        (
            {
                "model": "qwen3-30b-a3b",
                "parallel": {"tp": 2, "ep": 2},
                "experts": {"num_redundant_experts": 2},
            },
            "needs enable_eplb",
        ),
    ],
)
def test_degrees_that_exclude_each_other_are_one_line(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ScenarioError, match=what) as caught:
        deploy(pool(**settings), Path())
    assert len(caught.value.problems) == 1


def test_shared_experts_cost_what_the_busier_rank_has_more() -> None:
    moe = {"model": "qwen3-30b-a3b", "scheduler": vllm(is_async=True)}
    even = play(prepare(scenario(20, parallel={"tp": 2}, rate=1.0, **moe), Path())).replicas[0].term_s["moe"]
    shared = play(prepare(scenario(20, parallel={"tp": 2, "ep": 2}, rate=1.0, **moe), Path()))
    skewed = play(
        prepare(scenario(20, parallel={"tp": 2, "ep": 2}, experts={"skew": 0.8}, rate=1.0, **moe), Path())
    )
    assert even < shared.replicas[0].term_s["moe"] < skewed.replicas[0].term_s["moe"] * 1.05


def test_copies_of_experts_take_memory() -> None:
    # 8 copies on 2 ranks: 4 more experts of 3 x 2,048 x 768 bf16 parameters in each of 48 layers.
    shared = {"model": "qwen3-30b-a3b", "parallel": {"tp": 2, "ep": 2}}
    copied = {**shared, "experts": {"enable_eplb": True, "num_redundant_experts": 8}}
    budgets = [deploy(pool(**settings), Path()).budget for settings in (shared, copied)]
    assert budgets[1].weight_bytes - budgets[0].weight_bytes == pytest.approx(48 * 4 * 3 * 2048 * 768 * 2)


def test_a_rank_of_shared_experts_holds_as_many_bytes_as_one_of_sliced_ones() -> None:
    sliced = deploy(pool(model="qwen3-30b-a3b", parallel={"tp": 2}), Path()).budget
    shared = deploy(pool(model="qwen3-30b-a3b", parallel={"tp": 2, "ep": 2}), Path()).budget
    assert shared.weight_bytes == sliced.weight_bytes


def test_weights_that_do_not_fit_are_refused_with_their_sum_and_run_from_the_host() -> None:
    # 70.6 billion parameters of 2 bytes, 131 GiB, on one GPU of 140: no room for KV.
    with pytest.raises(InfeasibleError, match=r"weights 131\.4 \+ activations"):
        deploy(pool(model="llama-3.1-70b"), Path())
    away = deploy(pool(model="llama-3.1-70b", weights={"placement": "dram"}), Path())
    # Two of 80 layers, embeddings and lm_head stay: 3.2 + 3.9 GiB.
    assert away.budget.weight_bytes / 2**30 == pytest.approx(7.1, abs=0.2)
    assert away.budget.num_gpu_blocks > 20_000


def test_a_decode_takes_what_its_weights_take_to_arrive() -> None:
    # 137 GB of layers over PCIe at 55 GB/s: 2.5 s a token.
    options = {"model": "llama-3.1-70b", "weights": {"placement": "dram"}}
    record = play(prepare(scenario(2, rate=0.01, **options), Path()))
    totals = record.replicas[0]
    assert totals.busy_s / totals.num_steps == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"weights": {"placement": "dram", "num_shards": 2}}, r"\.weights: weights: num_shards above 1"),
        (
            {"weights": {"placement": "dram"}, "parallel": {"pp": 2}},
            r"\.weights\.placement: is modelled with one",
        ),
    ],
)
def test_placements_that_make_no_sense_are_one_line(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ScenarioError, match=what) as caught:
        deploy(pool(**settings), Path())
    assert len(caught.value.problems) == 1
