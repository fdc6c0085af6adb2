"""Whole runs over tiers: what the summary and the tables tell of them."""

from __future__ import annotations

import pytest

from simllm.errors import ScenarioError
from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate

from .small import scenario

DOCUMENTS = (
    "workload.shared_prefix={num_prefixes: 6, prefix_tokens: {kind: fixed, tokens: 3200}}",
    "pools.0.kv.num_gpu_blocks=900",
)
TIERS = (
    "pools.0.kv.tiers=[{tier: dram, capacity_gib: 1}, {tier: remote, capacity_gib: 50, write: write_back}]"
)


def run(*overrides: str) -> Result:
    return simulate(scenario(*DOCUMENTS, *overrides))


def test_tiers_serve_what_hbm_has_lost() -> None:
    without, with_tiers = run().summary(), run(TIERS).summary()
    assert with_tiers["prefix_cache_hit_rate"] > without["prefix_cache_hit_rate"]
    dram, remote = with_tiers["kv_tiers"]
    hits = with_tiers["kv"][0]["prefix_hit_tokens"] + dram["hit_tokens"] + remote["hit_tokens"]
    assert hits == with_tiers["cached_tokens"]
    assert remote["hit_tokens"] > 0
    assert without["kv_tiers"] == without["links"] == []


def test_bytes_of_tiers_are_those_of_their_links() -> None:
    summary = run(TIERS).summary()
    dram, remote = summary["kv_tiers"]
    links = {link["link"]: link["num_bytes"] for link in summary["links"]}
    assert links["remote.node0.out"] == remote["read_bytes"]
    assert links["remote.node0.in"] == remote["written_bytes"]
    # Into HBM comes what both tiers give, but for what the host passes on to the store.
    assert (
        links["pcie.0.host_to_device"] == dram["read_bytes"] + remote["read_bytes"] - remote["written_bytes"]
    )
    # A block of 16 tokens of Llama-3.1-8B: 16 x 131,072 B.
    block_bytes = 16 * 131_072
    assert (
        dram["loaded_tokens"] + remote["loaded_tokens"] == 16 * links["pcie.0.host_to_device"] / block_bytes
    )


def test_blocks_of_a_tier_are_there_or_were_evicted() -> None:
    for tier in run(TIERS).summary()["kv_tiers"]:
        held = tier["inserted_blocks"] - tier["evicted_blocks"]
        assert 0 < held <= tier["max_used_blocks"] <= tier["num_blocks"]


def test_the_table_has_every_tier_over_time_and_no_replica_for_a_shared_one() -> None:
    kv = run(TIERS).kv
    assert list(kv.tier.unique()) == ["hbm", "dram", "remote"]
    assert kv[kv.tier == "remote"].replica.isna().all()
    assert (kv[kv.tier == "dram"].replica == 0).all()
    assert kv[kv.tier == "dram"].used_blocks.max() <= 512


@pytest.mark.parametrize(
    "policy",
    [
        "{kind: vllm_offloading, kv_offloading_size_gib: 8}",
        "{kind: hicache, hicache_ratio: 2}",
        "{kind: hicache, hicache_ratio: 1, storage: {tier: remote, capacity_gib: 50}}",
    ],
)
def test_ready_made_policies_run(policy: str) -> None:
    summary = run(f"pools.0.kv.tier_policy={policy}").summary()
    assert summary["completed"] == 40
    assert summary["kv_tiers"][0]["hit_tokens"] > 0


def test_a_run_over_tiers_leaps_to_the_same_summary() -> None:
    leaping = run(TIERS).summary()
    plain = run(TIERS, "run.leaps=false").summary()
    for key in ("mean_ttft_ms", "mean_tpot_ms", "p99_e2el_ms", "cached_tokens"):
        assert leaping[key] == pytest.approx(plain[key], rel=1e-9)
    assert [tier["read_bytes"] for tier in leaping["kv_tiers"]] == [
        tier["read_bytes"] for tier in plain["kv_tiers"]
    ]


def test_an_engine_that_cannot_wait_for_loads_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"pools\[0\].kv.tier_policy: sglang lets no request wait"):
        run("pools.0.scheduler.kind=sglang", "pools.0.kv.tier_policy={kind: own, load: async}", TIERS)
