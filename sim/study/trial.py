"""One request rate, tried with every seed: what share of the requests was good, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import lower_bound
from .orders import Row

# The stay of requests may grow by so much through runs that are called stable; more in a single one, where
# chance, or the ups and downs of a trace, are not averaged out.
_GROWTH = 0.1
_GROWTH_OF_ONE_RUN = 0.5
# Below so many requests in the system on average, each has it for itself.
_IDLE = 0.05
# Below so much overspent a bad rate is as bad as any: one disaster shall not bend the whole smoothed curve.
_WORST = -1.0
_DIGITS = 9  # a share that is just enough is not too little by rounding


@dataclass(frozen=True, slots=True)
class Trial:
    """The runs of one rate [req/s], a row per seed.

    needed: what share of the requests must be good, by criterion. confidence: of the claims below.
    """

    request_rate: float
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    needed: Mapping[str, float]
    confidence: float

    def shares(self, criterion: str) -> list[float]:
        """Returns the share of good requests in each run."""
        return [row["shares"][criterion] for row in self.rows]

    @property
    def margin(self) -> float:
        """How much of the allowed misses is left at least, with the confidence; negative if too many miss."""
        return min(self._margin_of(criterion) for criterion in self.needed)

    @property
    def binding(self) -> str:
        """The criterion with the least margin."""
        return min(self.needed, key=self._margin_of)

    @property
    def is_met(self) -> bool:
        """Whether every criterion is met, with the confidence."""
        return self.margin >= 0

    @property
    def is_idle(self) -> bool:
        """Whether requests hardly ever meet: a lower rate makes none of them faster."""
        inside = [row["mean_in_system"] for row in self.rows if row["mean_in_system"] is not None]
        return bool(inside) and float(np.mean(inside)) < _IDLE

    @property
    def growth(self) -> float | None:
        """Growth of the mean stay through the run, see `load_over_time`; None where there is none to tell."""
        growths = self._growths()
        return float(np.mean(growths)) if growths else None

    @property
    def is_unstable(self) -> bool:
        """Whether requests stay longer and longer, with the confidence."""
        growths = self._growths()
        if not growths:
            return False
        least = _GROWTH if len(growths) > 1 else _GROWTH_OF_ONE_RUN
        return lower_bound(growths, self.confidence) > least

    def margin_of_run(self, place: int) -> float:
        """Returns how much of the allowed misses one run leaves."""
        return min(_left(self.rows[place]["shares"][name], share) for name, share in self.needed.items())

    def mean(self, key: str) -> float | None:
        """Returns the mean of a number over the runs that have it."""
        return _mean([row[key] for row in self.rows])

    def percentile_ms(self, term: str) -> float | None:
        """Returns the mean of a term's percentile over the runs [ms], None if in one it is not finite."""
        values = [row["percentiles_ms"][term] for row in self.rows]
        return None if None in values else _mean(values)

    def _margin_of(self, criterion: str) -> float:
        needed = self.needed[criterion]
        return _left(lower_bound(self.shares(criterion), self.confidence), needed)

    def _growths(self) -> list[float]:
        return [row["growth"] for row in self.rows if row["growth"] is not None]


def _left(share: float, needed: float) -> float:
    """Returns the part of the allowed misses that is left, 1 with none and 0 at the limit."""
    allowed = 1 - needed
    left = (share - needed) / allowed if allowed > 0 else min(share - needed, 0.0)
    return max(round(left, _DIGITS), _WORST)


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
