"""Settings of a tier's eviction policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .....spec import Spec


class LruSpec(Spec):
    """Least recently used first."""

    kind: Literal["lru"] = "lru"


class LfuSpec(Spec):
    """Least frequently used first."""

    kind: Literal["lfu"] = "lfu"


class FifoSpec(Spec):
    """In the order in which it was stored."""

    kind: Literal["fifo"] = "fifo"


class ArcSpec(Spec):
    """Adaptive replacement: least recently or least frequently used, by which of them is regretted."""

    kind: Literal["arc"] = "arc"


class RandomEvictionSpec(Spec):
    """By chance."""

    kind: Literal["random"] = "random"


class TtlSpec(Spec):
    """What has not been used for a time is dropped, whether or not its room is needed."""

    kind: Literal["ttl"] = "ttl"
    ttl_s: float = Field(600.0, gt=0)


class CostAwareSpec(Spec):
    """What saves the least time per block first: computing it again against loading it."""

    kind: Literal["cost_aware"] = "cost_aware"


class PositionAwareSpec(Spec):
    """The ends of prompts before their beginnings."""

    kind: Literal["position_aware"] = "position_aware"
    uses_per_block: float = Field(1.0, ge=0, description="Uses that one block of depth counts for.")


class TurnAwareSpec(Spec):
    """Conversations that have come back are kept longer."""

    kind: Literal["turn_aware"] = "turn_aware"
    alive_s: float = Field(600.0, ge=0, description="So much longer.")


class AttentionImportanceSpec(Spec):
    """What attention looks at least first."""

    kind: Literal["attention_importance"] = "attention_importance"
    exponent: float = Field(2.0, gt=0, description="Of the power law, for content without a score.")
    scores: dict[int, float] = Field({}, description="Importance of content by its id, of a scored trace.")


EvictionSpec = Annotated[
    LruSpec
    | LfuSpec
    | FifoSpec
    | ArcSpec
    | RandomEvictionSpec
    | TtlSpec
    | CostAwareSpec
    | PositionAwareSpec
    | TurnAwareSpec
    | AttentionImportanceSpec,
    Field(discriminator="kind"),
]
