"""A capacity that follows its use and what others leave of the memory; what it costs."""

from __future__ import annotations

import pytest

from simllm.sim.policy.kv.tiers.eviction.lru import LruEviction
from simllm.sim.policy.kv.tiers.spec import TierSpec
from simllm.sim.policy.kv.tiers.store import TierStore
from simllm.sim.policy.kv.tiers.tier import Tier

GIB = 2**30


def make_tier(**how: object) -> Tier:
    """A tier of up to 100 blocks of 1 GiB."""
    spec = TierSpec.model_validate({"tier": "dram", "capacity_gib": 100, **how})
    return Tier(spec, TierStore("dram", 100, LruEviction()), block_bytes=GIB)


def fill(tier: Tier, key: int, num_blocks: int, now: float) -> None:
    runs = ((key, num_blocks),)
    use = tier.store.use(now)
    spans, evicted = tier.store.insert(runs, (0, num_blocks), use)
    tier.store.complete(runs, spans)
    tier.note_change(now, evicted)


def test_a_tier_that_nobody_misses_shrinks_to_its_minimum() -> None:
    tier = make_tier(sizing={"min_gib": 50, "interval_s": 10, "step": 0.4})
    tier.note_hit(100)
    tier.adapt(10.0)
    assert tier.store.capacity_blocks == 60
    tier.note_hit(100)
    tier.adapt(20.0)
    assert tier.store.capacity_blocks == 50


def test_a_tier_grows_while_what_it_evicted_is_asked_for_again() -> None:
    tier = make_tier(sizing={"min_gib": 50, "interval_s": 10, "step": 0.4})
    tier.adapt(10.0)  # 60 blocks
    fill(tier, 1, 40, 11.0)
    fill(tier, 2, 40, 12.0)  # 20 of the first go
    tier.note_hit(80)
    tier.note_miss(1, 20)
    tier.adapt(20.0)
    assert tier.store.capacity_blocks == 84


def test_what_others_need_of_the_memory_is_given_up() -> None:
    tier = make_tier(pressure=[{"at_s": 100, "capacity_gib": 30}, {"at_s": 200, "capacity_gib": 90}])
    fill(tier, 1, 80, 50.0)
    assert tier.adapt(99.0) == []
    gone = tier.adapt(100.0)
    assert [span for _, span in gone] == [(30, 80)]
    tier.adapt(250.0)
    assert tier.store.capacity_blocks == 90
    tier.store.check()


def test_capacity_costs_what_was_kept_for_how_long() -> None:
    # 107.37 GB for an hour, then 32.21 GB for half an hour, at 0.01 USD per GB-hour.
    tier = make_tier(usd_per_gb_hour=0.01, pressure=[{"at_s": 3600, "capacity_gib": 30}])
    tier.adapt(3600.0)
    assert tier.usd(5400.0) == pytest.approx(0.01 * (107.374 + 32.212 / 2), rel=1e-4)
