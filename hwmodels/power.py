"""The power limit: matrix work starts at full clock, and settles at a lower one some tens of ms later.

A GPU at full clock draws more power under dense matrix products than its board may; the driver averages over
tens of ms before it lowers the clock. So the first prefill after a pause runs faster than the tenth in a row,
and the decodes after it run slower until the clock is back. docs/power.md has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

# Share of products and attention in a step's time from which on its clock settles as in products alone.
# SIMPLIFIED: below it, the clock settles in proportion; effect: some percent of steps that mix short chunks
# with many decodes, whose power lies between the two.
# Source: 0.92 in prefill steps of Llama-3.1-8B on H200; their clock settles where that of products does.
SETTLING_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """How one GPU meets its power limit: its clock follows a level between 0, full, and 1, settled.

    full_clock_ratio: time of matrix-bound work at full clock over its time with the clock settled; below 1.
    other_slowdown: seconds that a second of other work takes longer with the clock settled.
    SIMPLIFIED: one figure for all other work, of decodes of an 8-billion-parameter model; effect: the first
    decodes after prefill are some percent too slow where long reads from HBM leave less to the clock.
    reaction_s: time constant with which the level follows the load [s].
    busy_headroom, idle_headroom: how far below 0 other work and pauses pull the level, which delays the
    next matrix work's fall from full clock.
    """

    full_clock_ratio: float
    other_slowdown: float
    reaction_s: float
    busy_headroom: float
    idle_headroom: float

    @property
    def slowdown(self) -> float:
        """Seconds that a second of matrix-bound work at full clock takes longer with the clock settled."""
        return 1 / self.full_clock_ratio - 1

    def settling_level(self, matrix_share: float) -> float:
        """Returns where the level goes under steps whose time at full clock is matrix-bound to that share."""
        filled = min(1.0, matrix_share / SETTLING_SHARE)
        return filled - (1 - filled) * self.busy_headroom


class PowerState:
    """The clock of one replica's GPUs, step after step; all ranks do the same and count as one.

    Under constant load the level nears its goal exponentially, in the time of the load at full clock:
    d level / dt = (goal - level) / reaction_s. What it adds to a step is its integral above 0, a closed form:
    many equal steps at once or one by one give the same.
    """

    def __init__(self, limit: PowerLimit) -> None:
        """Starts rested."""
        self._limit = limit
        self._level = -limit.idle_headroom

    @property
    def level(self) -> float:
        """How low the clock is: 0 and below at full clock, 1 settled under matrix work."""
        return self._level

    def rest(self, pause_s: float) -> None:
        """Lets the clock rise in a pause."""
        self._lowered_s(pause_s, -self._limit.idle_headroom)

    def added_s(self, matrix_s: float, other_s: float) -> float:
        """Runs work that takes `matrix_s` + `other_s` at full clock; returns what the clock adds to it [s].

        matrix_s: the part that products and attention on matrix units bind. The sum lies between 0 and what
        the work takes longer with the clock settled.
        """
        limit, busy_s = self._limit, matrix_s + other_s
        if busy_s <= 0.0:
            return 0.0
        lowered_s = self._lowered_s(busy_s, limit.settling_level(matrix_s / busy_s))
        return lowered_s / busy_s * (matrix_s * limit.slowdown + other_s * limit.other_slowdown)

    def recover_s(self) -> float:
        """Lets full clock come back under work that memory binds; returns what that adds to it in all [s]."""
        limit, level = self._limit, self._level
        if level <= 0.0:
            return 0.0
        self._level = 0.0
        takes_s = limit.reaction_s * log(1 + level / limit.busy_headroom)
        return (limit.reaction_s * level - limit.busy_headroom * takes_s) * limit.other_slowdown

    def _lowered_s(self, duration_s: float, goal: float) -> float:
        """Moves the level towards `goal`; returns its integral over the time in which it is above 0 [s].

        The integral from t1 to t2 is goal (t2 - t1) + reaction_s (level(t1) - level(t2)).
        """
        start, reaction_s = self._level, self._limit.reaction_s
        self._level = end = goal + (start - goal) * exp(-duration_s / reaction_s)
        if start <= 0.0 and end <= 0.0:
            return 0.0
        above_s = duration_s
        if start < 0.0:
            above_s -= reaction_s * log((start - goal) / -goal)
        elif end < 0.0:
            above_s = reaction_s * log((start - goal) / -goal)
        lowered_s = goal * above_s + reaction_s * (max(start, 0.0) - max(end, 0.0))
        return min(max(lowered_s, 0.0), duration_s)
