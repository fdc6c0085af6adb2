"""What settings come to: tiers and rules of one's own, of vLLM and of SGLang; what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simllm.sim.policy.kv.spec import KvConfig
from simllm.sim.policy.kv.tiers.figures import figures_of
from simllm.sim.policy.kv.tiers.rules import refusal, resolve
from simllm.sim.policy.kv.tiers.spec import (
    HiCacheSpec,
    OwnTierPolicySpec,
    TierPolicySpec,
    TierSpec,
    VllmOffloadingSpec,
)

GIB = 2**30
REMOTE = TierSpec(tier="remote", capacity_gib=100)


def test_vllm_offloads_to_one_pinned_tier_and_loads_beside_others() -> None:
    tiers, rules = resolve(VllmOffloadingSpec(kv_offloading_size_gib=8), (), hbm_bytes=GIB)
    assert [(tier.tier, tier.capacity_gib, tier.write, tier.eviction.kind) for tier in tiers] == [
        ("dram", 8, "write_through", "lru")
    ]
    assert (rules.load, rules.cheaper_only, rules.prefetch) == ("async", False, None)


def test_vllm_stores_what_was_used_often_enough() -> None:
    (tier,), _ = resolve(VllmOffloadingSpec(kv_offloading_size_gib=8, store_threshold=3), (), hbm_bytes=GIB)
    assert (tier.write, tier.write_uses) == ("write_through_selective", 3)


def test_hicache_has_twice_the_memory_of_hbm_in_the_host() -> None:
    (tier,), rules = resolve(HiCacheSpec(), (), hbm_bytes=10 * GIB)
    assert tier.capacity_gib == 20
    assert (rules.load, rules.min_load_tokens, rules.prefetch) == ("along", 10, None)


def test_hicache_reaches_its_storage_by_prefetches_only() -> None:
    tiers, rules = resolve(HiCacheSpec(storage=REMOTE), (), hbm_bytes=GIB)
    assert ([tier.tier for tier in tiers], rules.num_direct) == (["dram", "remote"], 1)
    assert rules.prefetch is not None
    assert (rules.prefetch.threshold_tokens, rules.prefetch.stop) == (256, "timeout")


def test_figures_left_out_are_those_of_the_kind() -> None:
    figures = figures_of(TierSpec(tier="nvme", capacity_gib=1, read_gb_per_s=3))
    assert (figures.read_bytes_per_s, figures.write_bytes_per_s) == (3e9, pytest.approx(4.1e9))
    assert (figures.sharing, figures_of(REMOTE).sharing) == ("node", "global")


@pytest.mark.parametrize(
    ("kv", "what"),
    [
        ({"tiers": [REMOTE, REMOTE]}, "must differ in kind"),
        ({"tiers": [REMOTE], "tier_policy": {"kind": "hicache"}}, "has its own tiers"),
        ({"tiers": [REMOTE], "enable_prefix_caching": False}, "enable_prefix_caching: true"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(kv: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        KvConfig.model_validate(kv)


@pytest.mark.parametrize(
    ("policy", "scheduler", "why"),
    [
        (OwnTierPolicySpec(), "vllm_v1", None),
        (OwnTierPolicySpec(load="async"), "vllm_v1", None),
        (HiCacheSpec(), "sglang", None),
        (VllmOffloadingSpec(kv_offloading_size_gib=1), "sglang", "only vllm_v1 does"),
        (OwnTierPolicySpec(load="async"), "trtllm_max_utilization", "only vllm_v1 does"),
        (OwnTierPolicySpec(), "orca", "no prefix cache"),
    ],
)
def test_engines_that_cannot_have_tiers_are_named(
    policy: TierPolicySpec, scheduler: str, why: str | None
) -> None:
    told = refusal(policy, scheduler)
    assert told is None if why is None else why in str(told)
