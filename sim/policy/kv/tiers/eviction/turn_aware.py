"""Conversations that live on are kept longer than requests that came alone."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class TurnAwareEviction(Eviction):
    """Least recently used first, but what a conversation's later turns use counts as used `alive_s` later.

    A conversation that has come back once is likely to come back again.
    """

    def __init__(self, alive_s: float) -> None:
        self._alive_s = alive_s

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the instant of the last use, later for a conversation that goes on [s]."""
        return (use.at + (self._alive_s if use.turn else 0.0), use.number)
