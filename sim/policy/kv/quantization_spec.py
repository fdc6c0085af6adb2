"""How a KV cache is made smaller: scales of quantised values, and tokens that are dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...spec import Spec


class PerTensorScales(Spec):
    """One scale for all keys and one for all values of a layer, as vLLM's fp8 cache has."""

    kind: Literal["per_tensor"] = "per_tensor"


class PerChannelScales(Spec):
    """A scale per channel for every group_size tokens; it is folded into the query and the output."""

    kind: Literal["per_channel"] = "per_channel"
    group_size: int = Field(32, ge=1, description="Tokens per scale.")


class PerGroupScales(Spec):
    """A scale per group_size channels of every token."""

    kind: Literal["per_group"] = "per_group"
    group_size: int = Field(64, ge=1, description="Channels per scale.")


Scales = PerTensorScales | PerChannelScales | PerGroupScales


class NoSparsity(Spec):
    """Every token stays."""

    kind: Literal["none"] = "none"


class H2oSparsity(Spec):
    """A share of the tokens stays: those that attention has weighted most, and the newest (H2O)."""

    kind: Literal["h2o"] = "h2o"
    keep_share: float = Field(0.2, gt=0, le=1, description="Share of the context that stays.")


class SlidingWindowSparsity(Spec):
    """The newest tokens stay."""

    kind: Literal["sliding_window"] = "sliding_window"
    window_tokens: int = Field(4096, ge=1)


class AttentionSinksSparsity(Spec):
    """The first and the newest tokens stay (StreamingLLM)."""

    kind: Literal["attention_sinks"] = "attention_sinks"
    sink_tokens: int = Field(4, ge=1)
    window_tokens: int = Field(4096, ge=1)


Sparsity = NoSparsity | H2oSparsity | SlidingWindowSparsity | AttentionSinksSparsity
