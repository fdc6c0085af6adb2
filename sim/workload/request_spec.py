"""What requests of all generated kinds may have: shared prefixes, reasoning, samples; as validated data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..spec import Spec
from .length_spec import LengthSpec, Tokens


class SharedPrefix(Spec):
    """Prefixes, such as system prompts, put in front of the prompts and shared between requests.

    A prompt is then its prefix plus prompt_tokens of its own.
    """

    num_prefixes: int = Field(ge=1)
    prefix_tokens: LengthSpec = Field(description="Drawn once per prefix.")
    share: float = Field(1.0, gt=0, le=1, description="Fraction of the requests that have a prefix.")
    zipf_exponent: float = Field(
        0.0, ge=0, description="Popularity: the r-th prefix has a weight of r^-exponent; 0 is equal."
    )


class SampledSpec(Spec):
    """How many answers each request asks for."""

    num_samples: int = Field(1, ge=1, le=4096, description="Samples per request (`n`), each a whole answer.")
    beam_width: int = Field(0, ge=0, le=64, description="Beams that search for one answer; 0 for sampling.")
    tenant_shares: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="Tenants by their shares of the requests, or of the sessions; by default as recorded."
    )

    @model_validator(mode="after")
    def _samples_or_beams(self) -> Self:
        if self.num_samples > 1 and self.beam_width:
            raise ValueError("give either num_samples or beam_width")
        return self


class ReasoningRatio(Spec):
    """How much of an answer is reasoning: edges[i] to edges[i+1] with weights[i], evenly in between.

    Without weights all bins are equally likely, so quantiles can serve as edges; equal edges are one value.
    """

    edges: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=2)
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if list(self.edges) != sorted(self.edges):
            raise ValueError("edges must not decrease")
        if self.weights is not None and len(self.weights) != len(self.edges) - 1:
            raise ValueError(f"there must be {len(self.edges) - 1} weights, not {len(self.weights)}")
        if self.weights is not None and not sum(self.weights):
            raise ValueError("at least one weight must be positive")
        return self


class ReasoningLimits(Spec):
    """What cuts reasoning short; the answer after it stays as long as it is."""

    budget_tokens: Tokens | None = Field(None, description="Reasoning is cut at this many tokens.")
    early_stop_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the reasoning requests that stop early, anywhere in their reasoning.",
    )


class Reasoning(ReasoningLimits):
    """Reasoning in front of the answer. Give tokens or ratio.

    With tokens, output_tokens are those of the answer, and reasoning comes on top; with ratio,
    output_tokens hold both.
    """

    tokens: LengthSpec | None = None
    ratio: ReasoningRatio | None = None
    share: float = Field(1.0, ge=0, le=1, description="Fraction of the requests that reason.")

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        if (self.tokens is None) == (self.ratio is None):
            raise ValueError("give either tokens or ratio")
        return self


class FixedDelay(Spec):
    """The same delay every time."""

    kind: Literal["fixed"] = "fixed"
    delay_s: float = Field(ge=0)


class ExponentialDelay(Spec):
    """Exponential delays."""

    kind: Literal["exponential"] = "exponential"
    mean_s: float = Field(gt=0)


class LognormalDelay(Spec):
    """Lognormal delays: most are short, some are long."""

    kind: Literal["lognormal"] = "lognormal"
    median_s: float = Field(gt=0)
    sigma: float = Field(ge=0, description="Standard deviation of the logarithm.")
    max_s: float | None = Field(None, gt=0, description="Longer delays are cut to this.")


DelaySpec = Annotated[FixedDelay | ExponentialDelay | LognormalDelay, Field(discriminator="kind")]
