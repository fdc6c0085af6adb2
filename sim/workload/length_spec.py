"""How long prompts and answers are: the length distributions of a scenario, as validated data."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..spec import Spec
from .paths import DataPath

# Beyond any context window, and within 32 bits.
MAX_TOKENS = 2**31 - 1
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


def _check_order(min_tokens: int, max_tokens: int | None) -> None:
    if max_tokens is not None and min_tokens > max_tokens:
        raise ValueError(f"min_tokens ({min_tokens}) exceeds max_tokens ({max_tokens})")


class FixedLength(Spec):
    """The same number of tokens for every request."""

    kind: Literal["fixed"] = "fixed"
    tokens: Tokens


class UniformLength(Spec):
    """Whole numbers from min_tokens to max_tokens, both included, equally likely."""

    kind: Literal["uniform"] = "uniform"
    min_tokens: Tokens
    max_tokens: Tokens

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        _check_order(self.min_tokens, self.max_tokens)
        return self


class LognormalLength(Spec):
    """A lognormal given by median and sigma or by mean and standard deviation, rounded and clipped.

    The parameters are those before clipping: a value outside is moved to the nearer bound.
    """

    kind: Literal["lognormal"] = "lognormal"
    median_tokens: float | None = Field(None, gt=0, description="exp(mu).")
    sigma: float | None = Field(None, ge=0, description="Standard deviation of the logarithm.")
    mean_tokens: float | None = Field(None, gt=0)
    std_tokens: float | None = Field(None, ge=0)
    min_tokens: Tokens = 1
    max_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        by_median = (self.median_tokens is not None, self.sigma is not None)
        by_mean = (self.mean_tokens is not None, self.std_tokens is not None)
        if {by_median, by_mean} != {(True, True), (False, False)}:
            raise ValueError("give either median_tokens and sigma, or mean_tokens and std_tokens")
        _check_order(self.min_tokens, self.max_tokens)
        return self


class ZipfLength(Spec):
    """min_tokens is the likeliest; the r-th number from there has a probability of r^-exponent."""

    kind: Literal["zipf"] = "zipf"
    exponent: float = Field(gt=0)
    min_tokens: Tokens = 1
    max_tokens: int = Field(ge=1, le=2**24)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        _check_order(self.min_tokens, self.max_tokens)
        return self


class HistogramLength(Spec):
    """An empirical distribution: values, or bins, with weights; inline or as a column of a YAML file.

    values_tokens: weights[i] is the weight of values_tokens[i]. edges_tokens: weights[i] is spread evenly
    over the whole numbers above edges_tokens[i] up to edges_tokens[i+1], the first bin has its lower edge
    too. Without weights all values or bins are equally likely, so quantiles can serve as edges.
    """

    kind: Literal["histogram"] = "histogram"
    values_tokens: tuple[Tokens, ...] | None = Field(None, min_length=1)
    edges_tokens: tuple[Tokens, ...] | None = Field(None, min_length=2)
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    path: DataPath | None = None
    column: str | None = Field(None, description="The name of the distribution in the file.")

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        forms = [self.values_tokens, self.edges_tokens, self.path]
        if sum(form is not None for form in forms) != 1:
            raise ValueError("give one of values_tokens, edges_tokens, and path with column")
        if (self.path is None) != (self.column is None):
            raise ValueError("path and column go together")
        if self.edges_tokens and any(low >= high for low, high in pairwise(self.edges_tokens)):
            raise ValueError("edges_tokens must increase")
        self._check_weights()
        return self

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        expected = len(self.values_tokens or ()) or len(self.edges_tokens or (0,)) - 1
        if len(self.weights) != expected:
            raise ValueError(f"there must be {expected} weights, not {len(self.weights)}")
        if not sum(self.weights):
            raise ValueError("at least one weight must be positive")


LengthSpec = Annotated[
    FixedLength | UniformLength | LognormalLength | ZipfLength | HistogramLength,
    Field(discriminator="kind"),
]
