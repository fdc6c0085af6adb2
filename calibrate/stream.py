"""One grid of sizes, walked in a low-discrepancy order, so that any prefix of it covers it evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

from scipy.stats import qmc

from ..hwmodels.op_point import OpPoint, work
from ..units import GIB

# A point beyond these tells nothing that a smaller one does not, and costs more time than several.
MAX_POINT_FLOPS = 8e12
MAX_POINT_BYTES = 6 * GIB
_SKIPPED = 1  # the first point of the sequence is the corner of the grid


@dataclass(frozen=True, slots=True)
class Stream:
    """One grid: `make` turns one value of each axis into a point, or None where they do not fit.

    weight: share of the plan; count: points at most.
    """

    op: str
    implementation: str
    dtype: str
    axes: Sequence[Sequence[Any]]
    make: Callable[..., OpPoint | None]
    weight: float
    count: int

    def points(self) -> Iterator[OpPoint]:
        """Yields the points in order, each once, and only those of a sensible size."""
        return islice(self._distinct(), self.count)

    def _distinct(self) -> Iterator[OpPoint]:
        seen: set[OpPoint] = set()
        size = prod(len(axis) for axis in self.axes)
        draws = qmc.Halton(len(self.axes), scramble=False).random(min(4 * size, 16 * self.count) + _SKIPPED)
        for draw in draws[_SKIPPED:]:
            values = (axis[int(place * len(axis))] for axis, place in zip(self.axes, draw, strict=True))
            point = self.make(*values)
            if point is None or point in seen or not _is_sensible(point):
                continue
            seen.add(point)
            yield point


def _is_sensible(point: OpPoint) -> bool:
    needed = work(point)
    return needed.flops <= MAX_POINT_FLOPS and needed.hbm_bytes <= MAX_POINT_BYTES
