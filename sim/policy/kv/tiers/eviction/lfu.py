"""Least frequently used first."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class LfuEviction(Eviction):
    """Fewest uses since it was stored first; of equals the least recently used."""

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns uses, then the number of the last one."""
        return (run.num_hits, use.number)
