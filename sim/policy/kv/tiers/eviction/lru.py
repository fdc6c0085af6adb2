"""Least recently used first."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class LruEviction(Eviction):
    """Least recently used first; vLLM's and SGLang's default for memory of the host."""

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the number of the last use."""
        return (use.number, 0.0)
