"""The settings of schedulers that serve requests by rank."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field

from .vllm_v1_spec import VllmV1Settings


class RankedSpec(VllmV1Settings):
    """vLLM V1's mechanism with requests in an order of their own instead of that of arrival."""

    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {order: {"order": order} for order in ("priority", "shortest_job", "least_slack")}
    )

    kind: Literal["ranked"] = "ranked"
    order: Literal["priority", "shortest_job", "least_slack"] = Field(
        "priority",
        description="Who comes first: the lowest priority number, the fewest tokens in all, or who is "
        "closest to missing ttft_slo_ms.",
    )
    length_error: float = Field(
        0.0,
        ge=0,
        description="shortest_job: standard deviation of the logarithm of predicted over true answer length.",
    )
    ttft_slo_ms: float = Field(1000.0, gt=0, description="least_slack: when first tokens are due.")
    prefill_tokens_per_s: float = Field(
        20_000.0, gt=0, description="least_slack: how fast prompts are expected to be computed."
    )
