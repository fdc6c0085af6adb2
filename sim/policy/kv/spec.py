"""The `kv:` part of a pool: how one replica keeps its keys and values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...spec import Spec
from .layout_spec import Layout, PagedLayout
from .prefix_spec import OwnPrefixCache, PrefixCache
from .quantization_spec import NoSparsity, PerTensorScales, Scales, Sparsity
from .tiers.spec import OwnTierPolicySpec, TierPolicySpec, TierSpec

KvDtype = Literal["auto", "bf16", "fp16", "fp8", "int8", "int4"]
QUANTISED = ("fp8", "int8", "int4")


class KvConfig(Spec):
    """The KV cache of one replica."""

    block_size: int = Field(16, ge=1, le=1024, description="Tokens per block.")
    dtype: KvDtype = Field("auto", description="auto: as the activations.")
    enable_prefix_caching: bool = Field(
        True,
        description="Keep and reuse the blocks of shared prefixes; off where the layout or the sparsity has "
        "none to share.",
    )
    prefix_cache: Annotated[PrefixCache, Field(discriminator="kind")] = OwnPrefixCache()
    num_gpu_blocks: int | None = Field(
        None, ge=2, description="Blocks that a real engine reported, instead of those computed from memory."
    )
    layout: Annotated[Layout, Field(discriminator="kind")] = PagedLayout()
    scales: Annotated[Scales, Field(discriminator="kind")] = PerTensorScales()
    sparsity: Annotated[Sparsity, Field(discriminator="kind")] = NoSparsity()
    tiers: tuple[TierSpec, ...] = Field((), description="Tiers under HBM, from the fastest; own rules only.")
    tier_policy: TierPolicySpec = OwnTierPolicySpec()
    gpus_per_node: int = Field(8, ge=1, description="GPUs of a node, which share its tiers and links.")
    accuracy_note: str | None = Field(
        None, description="What quantising or dropping does to answers; the summary repeats it."
    )

    @model_validator(mode="before")
    @classmethod
    def _shares_nothing_unasked(cls, data: Any) -> Any:
        """Switches prefix caching off where it cannot be and nobody asked for it."""
        if not isinstance(data, dict) or "enable_prefix_caching" in data:
            return data
        kinds = {_kind(data.get("layout")), _kind(data.get("sparsity"))}
        return data if kinds <= {None, "paged", "none"} else {**data, "enable_prefix_caching": False}

    @property
    def has_tiers(self) -> bool:
        """Whether KV is kept anywhere but in HBM."""
        return bool(self.tiers) or self.tier_policy.kind != "own"

    @model_validator(mode="after")
    def _check_tiers(self) -> KvConfig:
        names = [tier.tier for tier in self.tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"tiers must differ in kind (got {', '.join(names)})")
        if names and self.tier_policy.kind != "own":
            raise ValueError(f"tier_policy {self.tier_policy.kind} has its own tiers: leave `tiers` out")
        if self.has_tiers and not self.enable_prefix_caching:
            raise ValueError("tiers keep shared prefixes: set enable_prefix_caching: true")
        return self

    @model_validator(mode="after")
    def _check_combination(self) -> KvConfig:
        for name, kind, plain in (
            ("layout", self.layout.kind, "paged"),
            ("sparsity", self.sparsity.kind, "none"),
        ):
            if self.enable_prefix_caching and kind != plain:
                raise ValueError(f"{name} {kind} has no blocks to share: set enable_prefix_caching: false")
        if self.layout.kind != "paged" and self.sparsity.kind != "none":
            raise ValueError(
                f"sparsity {self.sparsity.kind} frees blocks, but a contiguous region stays reserved: use "
                "layout paged"
            )
        has_scales = self.scales.kind != "per_tensor"
        if has_scales and self.dtype not in QUANTISED:
            raise ValueError(f"scales {self.scales.kind} need a dtype of {', '.join(QUANTISED)}")
        if self.dtype == "int4" and not has_scales:
            raise ValueError("dtype int4 needs scales per_channel or per_group")
        return self


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
