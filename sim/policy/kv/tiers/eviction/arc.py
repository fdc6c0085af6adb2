"""Adaptive replacement: recency against frequency, by which of them has been regretted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ...runs import BlockRuns
from ..runs import Rank, StoredRun
from .base import Eviction, Use

RECENT, FREQUENT = 0, 1


class ArcEviction(Eviction):
    """What was used once and what was used again lie in two parts, each evicted by last use.

    How much of the tier the first part may hold follows what is stored anew soon after it was evicted: if it
    was of the first part, that one grows, if of the second, it shrinks. As in vLLM what comes back counts as
    used once.

    Source: Megiddo and Modha, ARC, FAST 2003; vLLM v1/kv_offload/cpu/policies/arc.py (read 2026-11).
    """

    num_parts = 2

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity = capacity_blocks
        self._target = 0.0  # blocks that the first part may hold
        # SIMPLIFIED: what was evicted is remembered by run, not by block; effect: none unless a run comes
        # back cut in another way.
        self._ghosts: tuple[OrderedDict[BlockRuns, int], ...] = (OrderedDict(), OrderedDict())
        self._num_ghosts = [0, 0]

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the number of the last use; a second use moves a run to the second part."""
        if run.added == use.number:
            run.part = RECENT
            self._regret(run)
        elif run.num_hits:
            run.part = FREQUENT
        return (use.number, 0.0)

    def order(self, part_blocks: Sequence[int]) -> Sequence[int]:
        """Returns the first part first while it holds what it may or more."""
        return (RECENT, FREQUENT) if part_blocks[RECENT] >= int(self._target) else (FREQUENT, RECENT)

    def dropped(self, run: StoredRun, chain: BlockRuns) -> None:
        """Remembers it, as long as it is among the last that would fill the tier once more."""
        ghosts, part = self._ghosts[run.part], run.part
        ghosts[chain] = run.num_blocks
        self._num_ghosts[part] += run.num_blocks
        while self._num_ghosts[part] > self._capacity:
            self._num_ghosts[part] -= ghosts.popitem(last=False)[1]

    def _regret(self, run: StoredRun) -> None:
        """Lets the part grow from which a run was evicted that comes back."""
        chain = run.path()
        for part, sign in ((RECENT, 1), (FREQUENT, -1)):
            size = self._ghosts[part].pop(chain, None)
            if size is not None:
                own, other = self._num_ghosts[part], self._num_ghosts[1 - part]
                self._target += sign * size * max(1.0, other / own)
                self._target = min(max(self._target, 0.0), self._capacity)
                self._num_ghosts[part] -= size
