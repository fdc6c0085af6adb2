"""Whole runs over a store whose nodes fail: what the summary tells of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from simllm.sim.outcome.results import Result
from simllm.sim.policy.kv.tiers.cache import TieredKvCache
from simllm.sim.policy.kv.tiers.runs import PENDING
from simllm.sim.policy.kv.tiers.tier import Tier
from simllm.sim.run import simulate
from simllm.sim.world.tier_totals import TierTotals, tier_totals

from .small import scenario

DOCUMENTS = (
    "workload.shared_prefix={num_prefixes: 6, prefix_tokens: {kind: fixed, tokens: 3200}}",
    "pools.0.kv.num_gpu_blocks=900",
)
CHANCE = "num_nodes: 4, replication: 2, write: asynchronous, stripe_blocks: 16, mtbf_s: 8, repair_s: 2"


def run(store: str, *overrides: str, tier: str = "remote", capacity_gib: int = 50) -> Result:
    tiers = f"pools.0.kv.tiers=[{{tier: {tier}, capacity_gib: {capacity_gib}, store: {{{store}}}}}]"
    return simulate(scenario(*DOCUMENTS, tiers, *overrides))


def tier_of(result: Result) -> dict[str, Any]:
    tier: dict[str, Any] = result.summary()["kv_tiers"][0]
    return tier


def test_nodes_that_are_lost_by_chance_cost_tokens_but_no_request() -> None:
    result = run(f"{CHANCE}, index_delay_s: 0.5, checksum_failures: 0.001")
    assert result.summary()["completed"] == 40
    tier = tier_of(result)
    store = tier["store"]
    assert store["copies_lost"] > 0
    assert store["rebuilt_bytes"] > 0
    assert store["replicated_bytes"] > 0
    assert tier["inserted_blocks"] - tier["evicted_blocks"] - store["lost_blocks"] <= tier["max_used_blocks"]


def test_bytes_copied_between_nodes_are_those_of_their_link() -> None:
    result = run("num_nodes: 3, replication: 3, write: asynchronous")
    links = {link["link"]: link["num_bytes"] for link in result.summary()["links"]}
    store = tier_of(result)["store"]
    assert store["rebuilt_bytes"] == 0
    assert links["remote.rebuild"] == store["replicated_bytes"] > 0


def test_copies_take_room_and_money_once_each() -> None:
    one, two = tier_of(run("replication: 1")), tier_of(run("replication: 2"))
    assert two["num_blocks"] == one["num_blocks"] // 2
    assert two["written_bytes"] == 2 * one["written_bytes"]
    assert two["usd"] == pytest.approx(one["usd"], rel=0.05), "the same memory, for about as long"


def test_what_a_version_change_invalidates_is_computed_once_more() -> None:
    store = tier_of(run("version_changes: [1.0]"))["store"]
    assert store["recomputed_tokens"]["version"] > 0


def test_disks_of_a_node_may_be_a_store() -> None:
    store = tier_of(run("num_nodes: 2, losses: [{node: 0, at_s: 1}]", tier="nvme"))["store"]
    assert store["lost_blocks"] == store["copies_lost"] > 0


def test_a_run_over_a_store_is_the_same_again_and_leaps_to_the_same_sums() -> None:
    how = f"{CHANCE}, index_delay_s: 0.5, checksum_failures: 0.001"
    first, again, plain = run(how), run(how), run(how, "run.leaps=false")
    assert first.requests.equals(again.requests)
    assert tier_of(first) == tier_of(again)
    assert tier_of(first)["store"] == tier_of(plain)["store"]
    for key in ("mean_ttft_ms", "p99_e2el_ms", "cached_tokens"):
        assert first.summary()[key] == pytest.approx(plain.summary()[key], rel=1e-9)


def test_a_store_waits_for_no_replica_that_has_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without an end of what it moved, its blocks would stay pinned, and those on their way in unusable.
    tiers: dict[int, Tier] = {}

    def keep(caches: Iterable[tuple[int, object]], ended_at: float) -> list[TierTotals]:
        found = list(caches)
        for _, kv in found:
            assert isinstance(kv, TieredKvCache)
            tiers.update((id(tier), tier) for tier in kv.tiers)
        return tier_totals(found, ended_at)

    monkeypatch.setattr("simllm.sim.run.tier_totals", keep)
    crashes = ", ".join(
        f"{{kind: crash, at_s: {at}, replica: 0, restart_s: 0.5}}" for at in (1, 2, 3, 4, 5, 6)
    )
    slow = "pools.0.kv.tiers.0.read_gb_per_s=0.5"
    result = run(f"{CHANCE}", f"faults={{schedule: [{crashes}]}}", slow, "pools.0.replicas=2")
    assert result.summary()["completed"] + result.summary()["failed"] == 40
    (store,) = (tier.store for tier in tiers.values())
    store.check()
    assert store.num_inserted > 0
    assert not any(run.num_pins or run.state == PENDING for run in store.tree.stored())
