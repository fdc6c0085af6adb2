"""Where a noisy falling curve crosses zero: a geometric bracket, then bisection on the smoothed curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

# As close as a rate is told, and typed again.
_SIGNIFICANT_DIGITS = 4
_MAX_DOUBLINGS = 16
_MAX_BISECTIONS = 40


class Bracket(NamedTuple):
    """The crossing lies between two rates that were tried: above zero at `low`, below at `high`.

    low is None if no rate was above, high if none was below.
    """

    low: float | None
    high: float | None


def find_crossing(
    margin_at: Callable[[float], float | None], start: float, *, tolerance: float
) -> tuple[Bracket, dict[float, float]]:
    """Returns the bracket of the crossing and the margins at all rates tried.

    margin_at: a rate's margin, noisy and falling with the rate; None says that it is no use to try lower.
    The bracket ends when its ends are within `tolerance` (a share) of each other.
    Source: isotonic regression by pool-adjacent-violators, Barlow et al., Statistical Inference under Order
    Restrictions (1972), as scipy.optimize has it.
    """
    margins: dict[float, float] = {}
    rate = rounded_rate(start)
    factor = 0.0
    for _ in range(_MAX_DOUBLINGS + 1):
        margin = margin_at(rate)
        margins[rate] = -1.0 if margin is None else margin
        bracket = bracket_of(margins)
        if margin is None or (bracket.low is not None and bracket.high is not None):
            break
        factor = 0.5 if bracket.low is None else 2.0
        rate = rounded_rate(rate * factor)
    for _ in range(_MAX_BISECTIONS):
        bracket = bracket_of(margins)
        if bracket.low is None or bracket.high is None or bracket.high <= bracket.low * (1 + tolerance):
            break
        middle = rounded_rate(math.sqrt(bracket.low * bracket.high))
        if middle in margins:
            break  # closer than rates are told
        margin = margin_at(middle)
        margins[middle] = -1.0 if margin is None else margin
    return bracket_of(margins), margins


def bracket_of(margins: Mapping[float, float]) -> Bracket:
    """Returns the neighbouring rates between which the smoothed margins fall below zero."""
    rates = sorted(margins)
    good = [rate for rate, margin in zip(rates, smoothed(margins), strict=True) if margin >= 0]
    bad = rates[len(good) :]
    return Bracket(good[-1] if good else None, bad[0] if bad else None)


def crossing(margins: Mapping[float, float]) -> float | None:
    """Returns the rate at which the smoothed margins are zero, between two rates by the line in log(rate)."""
    bracket = bracket_of(margins)
    if bracket.low is None or bracket.high is None:
        return None
    levels = dict(zip(sorted(margins), smoothed(margins), strict=True))
    above, below = levels[bracket.low], levels[bracket.high]
    share = above / (above - below)
    return float(bracket.low * (bracket.high / bracket.low) ** share)


def smoothed(margins: Mapping[float, float]) -> list[float]:
    """Returns the falling curve that is nearest to the margins in least squares, by rising rate."""
    values = [margins[rate] for rate in sorted(margins)]
    fitted: list[float] = isotonic_regression(np.array(values), increasing=False).x.tolist()
    return fitted


def rounded_rate(rate: float) -> float:
    """Returns a rate as it is told, to four digits."""
    return float(f"{rate:.{_SIGNIFICANT_DIGITS}g}")
