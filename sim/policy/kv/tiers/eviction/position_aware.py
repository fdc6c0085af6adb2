"""The ends of chains first: beginnings serve more requests."""

from __future__ import annotations

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class PositionAwareEviction(Eviction):
    """Depth in the chain counts as age: each block before a run as `uses_per_block` uses.

    So beginnings stay longer than ends, and yet none stays for ever.
    """

    def __init__(self, uses_per_block: float) -> None:
        self._uses_per_block = uses_per_block

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the number of the last use less what its depth counts."""
        return (use.number - self._uses_per_block * run.first_block, 0.0)
