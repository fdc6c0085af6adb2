"""What the settings come to: the tiers, from the fastest to the slowest, and the rules that all obey."""

from __future__ import annotations

from dataclasses import dataclass

from .....units import GIB
from .eviction.spec import ArcSpec, LruSpec
from .spec import (
    HiCacheSpec,
    Load,
    OwnTierPolicySpec,
    PrefetchSpec,
    TierPolicySpec,
    TierSpec,
    VllmOffloadingSpec,
)

# SGLang loads no less than this from the host. Source: HiRadixCache.load_back_threshold.
HICACHE_MIN_LOAD_TOKENS = 10
# Engines whose cache shares nothing, or (KsanaLLM) swaps to the host by rules of its own.
_WITHOUT_TIERS = ("fastgen", "ksana", "orca", "static")
# Source: SGLang HiRadixCache.write_through_threshold: 1 for write_through, else 2.
HICACHE_SELECTIVE_USES = 2


@dataclass(frozen=True, slots=True)
class TierRules:
    """Rules of loading.

    num_direct: tiers from which HBM is loaded; what lies below must be prefetched. cheaper_only: load only
    what is expected to take longer to compute. promotes: what passes a tier on its way up stays there.
    """

    load: Load
    num_direct: int
    cheaper_only: bool = False
    min_load_tokens: int = 1
    promotes: bool = True
    prefetch: PrefetchSpec | None = None


def resolve(
    policy: TierPolicySpec, tiers: tuple[TierSpec, ...], *, hbm_bytes: float
) -> tuple[tuple[TierSpec, ...], TierRules]:
    """Returns the tiers and rules that the settings ask for. hbm_bytes: KV cache of a replica [B]."""
    if isinstance(policy, VllmOffloadingSpec):
        return _vllm_offloading(policy)
    if isinstance(policy, HiCacheSpec):
        return _hicache(policy, hbm_bytes)
    return tiers, _own(policy, len(tiers))


def _own(policy: OwnTierPolicySpec, num_tiers: int) -> TierRules:
    return TierRules(
        load=policy.load,
        num_direct=num_tiers,
        cheaper_only=policy.load_or_recompute == "cheaper",
        min_load_tokens=policy.min_load_tokens,
        promotes=policy.promote,
        prefetch=policy.prefetch,
    )


def _vllm_offloading(policy: VllmOffloadingSpec) -> tuple[tuple[TierSpec, ...], TierRules]:
    """Returns vLLM's rules: one tier of pinned memory, stores after the step, loads beside others.

    Source: vLLM v1/kv_offload/cpu/{spec,manager}.py (cpu_bytes_to_use, store_threshold, lru) and
    distributed/kv_transfer/kv_connector/v1/offloading/scheduler.py (behaviour, read 2026-11).
    """
    tier = TierSpec(
        tier="dram",
        capacity_gib=policy.kv_offloading_size_gib,
        sharing="replica",
        eviction=ArcSpec() if policy.eviction_policy == "arc" else LruSpec(),
        write="write_through" if policy.store_threshold < 2 else "write_through_selective",
        write_uses=max(policy.store_threshold, 1),
    )
    return (tier,), TierRules(load="async", num_direct=1)


def _hicache(policy: HiCacheSpec, hbm_bytes: float) -> tuple[tuple[TierSpec, ...], TierRules]:
    """Returns SGLang's rules: L2 is loaded layer by layer, L3 only by way of a prefetch into L2.

    Source: SGLang mem_cache/hiradix_cache.py and docs/advanced_features/hicache_design.md (read 2026-11).
    """
    size_bytes = policy.hicache_ratio * hbm_bytes
    if policy.hicache_size_gb is not None:
        size_bytes = policy.hicache_size_gb * 1e9
    host = TierSpec(
        tier="dram",
        capacity_gib=size_bytes / GIB,
        sharing="replica",
        write=policy.hicache_write_policy,
        write_uses=HICACHE_SELECTIVE_USES,
    )
    prefetch = PrefetchSpec(
        on="arrival",
        threshold_tokens=policy.prefetch_threshold,
        stop=policy.hicache_storage_prefetch_policy,
        timeout_base_s=policy.prefetch_timeout_base_s,
        timeout_per_ki_token_s=policy.prefetch_timeout_per_ki_token_s,
    )
    rules = TierRules(
        load="along",
        num_direct=1,
        min_load_tokens=HICACHE_MIN_LOAD_TOKENS,
        prefetch=None if policy.storage is None else prefetch,
    )
    return (host,) if policy.storage is None else (host, policy.storage), rules


def refusal(policy: TierPolicySpec, scheduler: str) -> str | None:
    """Returns why tiers don't go with an engine's scheduler, None if they do."""
    engine = scheduler.split("_", maxsplit=1)[0]
    if engine in _WITHOUT_TIERS:
        return f"{scheduler} has no prefix cache that tiers could lie under"
    waits = isinstance(policy, VllmOffloadingSpec) or (
        isinstance(policy, OwnTierPolicySpec) and policy.load == "async"
    )
    if waits and scheduler != "vllm_v1":
        return f"{scheduler} lets no request wait for its load while others go on, only vllm_v1 does"
    return None
