"""A row of the reproductions: a published figure, and how simllm comes to its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

# A figure agrees when it lies within the published range, widened by this share of its ends.
TOLERANCE = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure.

    published: lowest and highest figure that the source gives; equal if it gives one. measure: simulates
    and returns simllm's figure, in the same unit. explanation: for a disagreement, what it comes from and
    the ablation that shows it; for an agreement, what the reader must know. needs: environment variables
    that name folders of data that it cannot do without.
    """

    id: str
    claim: str
    source: str
    model: str
    device: str
    engine: str
    workload: str
    metric: str
    published: tuple[float, float]
    measure: Callable[[], float]
    explanation: str = ""
    needs: tuple[str, ...] = ()

    @property
    def is_runnable(self) -> bool:
        """Whether the data that it needs is there."""
        return all(os.environ.get(name) for name in self.needs)

    def verdict(self, ours: float) -> str:
        """Returns whether simllm's figure agrees with the published ones."""
        low, high = self.published
        agrees = low * (1 - TOLERANCE) <= ours <= high * (1 + TOLERANCE)
        return "agrees" if agrees else "disagrees"
