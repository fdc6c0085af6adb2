"""Whatever has not been used for a given time."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class TtlEviction(Eviction):
    """Gone `ttl_s` after the last use, earlier where room is needed: the one that would go first."""

    expires = True

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the instant of its end."""
        return (use.at + self._ttl_s, use.number)
