"""Quantities over time: counts, levels and percentiles in bins of equal width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..tables import round_interval
from .run_folder import Run

Floats = NDArray[np.float64]
_NUM_BINS = 120


class Bins(NamedTuple):
    """Bins of equal width; edges: (num_bins + 1,) instants [s]."""

    edges: Floats

    @property
    def width_s(self) -> float:
        """Width of each [s]."""
        return float(self.edges[1] - self.edges[0])

    @property
    def middle(self) -> list[float]:
        """The instant in the middle of each [s], (num_bins,)."""
        middle: list[float] = ((self.edges[:-1] + self.edges[1:]) / 2).tolist()
        return middle

    def place(self, instants: Floats) -> NDArray[np.intp]:
        """Returns the bin of each instant; those before the first or after the last are put there."""
        found = np.searchsorted(self.edges, instants, side="right") - 1
        return np.clip(found, 0, len(self.edges) - 2)

    def total(self, instants: Floats, amounts: Floats | None = None) -> Floats:
        """Returns what befell in each bin: the number of instants, or the sum of their amounts."""
        return np.bincount(self.place(instants), amounts, minlength=len(self.edges) - 1).astype(np.float64)

    def level(self, start: Floats, end: Floats, height: Floats | None = None) -> Floats:
        """Returns the mean over each bin of a level: the sum of the heights (of 1) of open intervals."""
        heights = np.ones(len(start)) if height is None else height
        at = np.concatenate([start, end])
        if not len(at):
            return np.zeros(len(self.edges) - 1)
        order = np.argsort(at, kind="stable")
        at, levels = at[order], np.cumsum(np.concatenate([heights, -heights])[order])
        area = np.concatenate([np.zeros(1), np.cumsum(levels[:-1] * np.diff(at))])
        until = np.interp(self.edges, at, area)
        # Rounding may fall below 0.
        level: Floats = np.maximum(np.diff(until) / np.diff(self.edges), 0.0).astype(np.float64)
        return level

    def percentile(self, instants: Floats, values: Floats, percent: float) -> Floats:
        """Returns a percentile of the values in each bin, nan where there are none."""
        known = ~np.isnan(values)
        groups = pd.Series(values[known]).groupby(self.place(instants[known]))
        filled = groups.quantile(percent / 100).reindex(range(len(self.edges) - 1))
        return np.asarray(filled.array, dtype=np.float64)

    def ratio(self, numerator: Floats, denominator: Floats) -> Floats:
        """Returns the quotient bin by bin, nan where there is nothing to divide by."""
        result = np.full(len(numerator), np.nan)
        np.divide(numerator, denominator, out=result, where=denominator > 0)
        return result


def common_bins(runs: Sequence[Run]) -> Bins:
    """Returns bins over the time of all runs: as wide as a round number of seconds, 120 at most."""
    start, end = min(run.started_at for run in runs), max(run.ended_at for run in runs)
    width = round_interval((end - start) / _NUM_BINS)
    first = width * np.floor(start / width)
    num_bins = max(int(np.ceil((end - first) / width)), 1)
    return Bins(first + width * np.arange(num_bins + 1))
