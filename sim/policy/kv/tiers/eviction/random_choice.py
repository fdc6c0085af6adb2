"""Any block, with equal chances."""

from __future__ import annotations

import numpy as np

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class RandomEviction(Eviction):
    """A run by chance, in proportion to its blocks.

    Each run draws an exponential lifetime whose rate is its number of blocks. As these forget their age,
    the one that ends first is at any instant any run with a chance in proportion to its rate.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns when its lifetime ends, on a clock that stands at the last one that did."""
        return (use.floor + float(self._rng.exponential(1 / run.num_blocks)), 0.0)
