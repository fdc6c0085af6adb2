"""Stored first, evicted first."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class FifoEviction(Eviction):
    """In the order in which they were stored, however often they are used."""

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the number of the use that stored it."""
        return (run.added, 0.0)
