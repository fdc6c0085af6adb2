"""How the rows of a launch fall on its products: all on one, or over the experts that their tokens choose."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, erfc, sqrt

import numpy as np

from .op_form import Array
from .op_point import OpPoint
from .ops import expected_distinct_experts

_ENOUGH_DEVIATIONS = 6.0  # beyond which a normal distribution holds nothing
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """Rows of one launch. shares: probability of every expert that a token is among its own, empty if dense.

    num_tokens: draws. num_rows: rows of all products together. tile_rows: that a kernel plans a tile for.
    num_unread_experts: how many experts less than under even choice get no token.
    """

    num_tokens: int
    num_rows: float
    tile_rows: float
    shares: Array
    num_unread_experts: float

    @classmethod
    def of(cls, point: OpPoint) -> ExpertLoad:
        """Returns the load of a product or of a grouped one."""
        if not point.num_experts:
            return cls(point.m, float(point.m), float(point.m), np.empty(0), 0.0)
        picks = point.experts_per_token
        shares = chosen_shares(point.num_experts, picks, point.skew)
        touched = float((1 - (1 - shares) ** point.m).sum())
        evenly = expected_distinct_experts(point.num_experts, picks, point.m)
        rows = point.m * picks
        return cls(point.m, float(rows), float(rows // point.num_experts), shares, evenly - touched)

    @property
    def is_dense(self) -> bool:
        """Whether there is one product only."""
        return not self.shares.size

    def num_tiles(self, tile: float) -> float:
        """Returns the mean tiles of `tile` rows over all experts, sums of P(rows > j tile) over j = 0, 1, ...

        The rows of an expert are binomial, beyond the first tile taken as normal.
        """
        shares, counts = np.unique(self.shares, return_counts=True)
        return sum(
            float(count) * _expected_tiles(self.num_tokens, float(share), tile)
            for share, count in zip(shares, counts, strict=True)
        )


def _expected_tiles(num_tokens: int, share: float, tile: float) -> float:
    mean = num_tokens * share
    deviation = sqrt(mean * (1 - share)) + _ROUNDING
    last = ceil((mean + _ENOUGH_DEVIATIONS * deviation) / tile)
    beyond = (erfc((j * tile + 0.5 - mean) / deviation / sqrt(2)) / 2 for j in range(1, last + 1))
    return 1 - (1 - share) ** num_tokens + sum(beyond)


def chosen_shares(num_experts: int, top_k: float, skew: float) -> Array:
    """Returns the probability of each expert to be among the `top_k` of a token, most popular first.

    The i-th expert has weight i^-skew. Drawn without repeats as by a race of exponential clocks: an expert is
    chosen if its clock rings before the time at which `top_k` have rung on average.
    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
    """
    weights = np.arange(1, num_experts + 1, dtype=np.float64) ** -skew
    if skew == 0 or top_k >= num_experts:
        return np.full(num_experts, min(1.0, top_k / num_experts))
    low, high = 0.0, 1.0
    while (1 - np.exp(-weights * high)).sum() < top_k:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - np.exp(-weights * middle)).sum() < top_k else (low, middle)
    return np.asarray(1 - np.exp(-weights * high))
