"""What saves the least time per block first: recomputing it against fetching it."""

from __future__ import annotations

from collections.abc import Callable

from ..runs import Rank, StoredRun
from .base import Eviction, Use


class CostAwareEviction(Eviction):
    """GreedyDual-Size with the time that a hit saves as the cost.

    The longer the context before a run, the dearer it is to compute again. Worth counts from the rank of
    the last eviction, so that what is not used grows old whatever it is worth.
    saved_s(context_blocks, num_blocks): time to compute them less the time to load them from here [s].

    Source: Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms, USITS 1997 (GreedyDual-Size); with
    frequency: Arlitt et al., GDSF, 2000.
    """

    def __init__(self, saved_s: Callable[[int, int], float]) -> None:
        self._saved_s = saved_s

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the time saved by its uses [s] per block, from the last eviction's rank on."""
        saved_s = max(0.0, self._saved_s(run.first_block, run.num_blocks))
        return (use.floor + (run.num_hits + 1) * saved_s / run.num_blocks, use.number)
