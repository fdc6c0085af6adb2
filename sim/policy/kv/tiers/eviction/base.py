"""The contract of a tier's eviction policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...runs import BlockRuns
from ..runs import Rank, StoredRun


class Use(NamedTuple):
    """One use of a tier.

    number: uses so far, this one included. at: when [s]. turn: turns before it in its conversation, 0
    without one. floor: the highest rank evicted so far.
    """

    number: int
    at: float
    turn: int
    floor: float


class Eviction(Protocol):
    """Ranks runs of blocks; the lowest rank goes first, of a run its end, of equals the deeper one.

    expires: the rank is the instant [s] at which a run goes, whether or not its room is needed. A policy may
    keep runs in `num_parts` parts, in each of which the lowest rank goes first.
    """

    expires: bool = False
    num_parts: int = 1

    def rank(self, run: StoredRun, use: Use) -> Rank:
        """Returns the rank of a run that is stored or used just now, and may set its `part`."""
        ...

    def order(self, part_blocks: Sequence[int]) -> Sequence[int]:
        """Returns the parts in the order in which to evict from them; `part_blocks`: what each holds."""
        return (0,)

    def dropped(self, run: StoredRun, chain: BlockRuns) -> None:
        """Hears that a run has gone, which lay at the end of `chain`."""
        return
