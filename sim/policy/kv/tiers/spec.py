"""The settings of tiers: `kv.tiers` and `kv.tier_policy` of a pool."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ....spec import Spec
from .eviction.spec import EvictionSpec, LruSpec
from .store_spec import StoreSpec

TierName = Literal["dram", "nvme", "remote"]
Sharing = Literal["replica", "node", "global"]
WritePolicy = Literal["write_through", "write_through_selective", "write_back"]
Load = Literal["async", "along", "before"]


class PressurePoint(Spec):
    """From an instant on, other users of the memory leave so much of it."""

    at_s: float = Field(ge=0)
    capacity_gib: float = Field(ge=0)


class SizingSpec(Spec):
    """A capacity that follows its use: it grows while evicted content is asked for again, else it shrinks."""

    min_gib: float = Field(gt=0, description="It never shrinks below, but for want of memory.")
    interval_s: float = Field(60.0, gt=0, description="How often it is looked at.")
    step: float = Field(0.25, gt=0, lt=1, description="Share of the capacity by which it changes.")
    regret: float = Field(
        0.02, gt=0, lt=1, description="Share of looked-up blocks, evicted before, from which it grows."
    )


class TierSpec(Spec):
    """One tier under HBM. Figures left out are those of its kind, in docs/kv-tiers.md."""

    tier: TierName
    capacity_gib: float = Field(gt=0, description="Of each replica, node or the whole, as `sharing` says.")
    read_gb_per_s: float | None = Field(
        None, gt=0, description="Out of it, per node [1e9 B/s]; for dram only the GPUs' PCIe limits."
    )
    write_gb_per_s: float | None = Field(None, gt=0, description="Into it, likewise.")
    store_gb_per_s: float | None = Field(
        None, gt=0, description="What all nodes together get from a remote tier; no limit by default."
    )
    latency_s: float | None = Field(None, ge=0, description="Until the first byte of a move.")
    usd_per_gb_hour: float | None = Field(None, ge=0, description="Price of keeping 1e9 bytes for an hour.")
    sharing: Sharing | None = Field(None, description="By default dram: replica, nvme: node, remote: global.")
    eviction: EvictionSpec = LruSpec()
    write: WritePolicy = Field(
        "write_through",
        description="When content comes in: as soon as the tier above has it; once it was used `write_uses` "
        "times; or when the tier above evicts it.",
    )
    write_uses: int = Field(2, ge=1, description="For write_through_selective.")
    sizing: SizingSpec | None = Field(None, description="By default the capacity stays.")
    pressure: tuple[PressurePoint, ...] = Field((), description="What other users leave of it, over time.")
    store: StoreSpec | None = Field(
        None, description="Its nodes, copies and failures, if it is shared; by default it never fails."
    )

    @model_validator(mode="after")
    def _check_store(self) -> TierSpec:
        sharing = self.sharing or ("replica" if self.tier == "dram" else "node")
        if self.store is not None and sharing == "replica":
            raise ValueError("store is for tiers that are shared: set sharing: node or global")
        return self


class PrefetchSpec(Spec):
    """Content fetched into the first tier before it is asked for."""

    on: Literal["arrival", "next_turn"] = Field(
        "arrival",
        description="When a request joins the queue, or `lead_s` before a conversation's next turn is due.",
    )
    threshold_tokens: int = Field(256, ge=1, description="Fewer are not worth it.")
    stop: Literal["best_effort", "wait_complete", "timeout"] = Field(
        "best_effort", description="What a request does whose turn has come while its content is on the way."
    )
    timeout_base_s: float = Field(2.0, ge=0)
    timeout_per_ki_token_s: float = Field(0.1, ge=0, description="More for each 1,024 tokens to fetch.")
    timeout_max_s: float = Field(30.0, ge=0)
    piece_blocks: int = Field(128, ge=1, description="Blocks fetched at a time.")
    think_s: float = Field(30.0, gt=0, description="Expected between turns, until some have been seen.")
    lead_s: float = Field(2.0, ge=0, description="So much before the next turn is due.")


class OwnTierPolicySpec(Spec):
    """Rules of one's own for the tiers in `kv.tiers`, from the fastest to the slowest."""

    kind: Literal["own"] = "own"
    load: Load = Field(
        "along",
        description="along: layer by layer while the step computes; before: the step waits; async: the "
        "request waits and others go on (vllm_v1 only).",
    )
    load_or_recompute: Literal["always_load", "cheaper"] = Field(
        "cheaper", description="cheaper: load if it is expected to be faster than computing it again."
    )
    min_load_tokens: int = Field(1, ge=1, description="Fewer are computed again.")
    promote: bool = Field(True, description="What is loaded from a lower tier stays in those it passes.")
    prefetch: PrefetchSpec | None = None


class VllmOffloadingSpec(Spec):
    """vLLM's native offloading to the CPU (`--kv-offloading-size`), by its rules."""

    kind: Literal["vllm_offloading"] = "vllm_offloading"
    kv_offloading_size_gib: float = Field(gt=0, description="Pinned memory of the host, all GPUs together.")
    eviction_policy: Literal["lru", "arc"] = "lru"
    store_threshold: int = Field(0, ge=0, description="Uses before a block is stored; below 2 all are.")


class HiCacheSpec(Spec):
    """SGLang's hierarchical cache, by its rules: L2 in the host, L3 in a shared store."""

    kind: Literal["hicache"] = "hicache"
    hicache_ratio: float = Field(2.0, gt=0, description="Memory of the host over that of the KV cache.")
    hicache_size_gb: float | None = Field(None, gt=0, description="Memory of the host instead [1e9 B].")
    hicache_write_policy: WritePolicy = "write_through"
    storage: TierSpec | None = Field(None, description="L3; none by default.")
    hicache_storage_prefetch_policy: Literal["best_effort", "wait_complete", "timeout"] = "timeout"
    prefetch_threshold: int = Field(256, ge=1, description="Tokens in L3 that are worth a prefetch.")
    prefetch_timeout_base_s: float = Field(2.0, ge=0)
    prefetch_timeout_per_ki_token_s: float = Field(0.1, ge=0)


TierPolicySpec = Annotated[OwnTierPolicySpec | VllmOffloadingSpec | HiCacheSpec, Field(discriminator="kind")]
