"""Inter-token gaps of all requests pooled, in flat memory.

Gaps fall into logarithmic bins whose edges grow by 0.1 %; a bin is reported by its geometric middle, so an
order statistic is off by 0.05 % at most. Count, mean, standard deviation, shortest and longest gap are
exact to rounding.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

BIN_GROWTH = 1.001
# The middle of [a, a g] is a sqrt(g), at most sqrt(g) - 1 <= (g - 1) / 2 away from anything in the bin.
RELATIVE_ERROR = (BIN_GROWTH - 1) / 2
_SHORTEST_S = 1e-7
_NUM_BINS = 28_000  # from 0.1 us up to 1e-7 * 1.001**28000 = 1.4e5 s
_MAX_PENDING = 8192  # runs

Floats = NDArray[np.float64]


class GapSketch:
    """Pooled gaps [s]: add single ones or whole straight runs, read statistics at any time.

    Valid: gaps from 0.1 us to 1.4e5 s. Shorter ones share a bin that is reported as the shortest gap.
    """

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_NUM_BINS, dtype=np.int64)
        self._upper_edges_s: Floats = _SHORTEST_S * np.power(BIN_GROWTH, np.arange(1.0, _NUM_BINS + 1))
        self._single = array("d")
        self._pending: list[Floats] = []  # runs, one per column
        self._num_pending = 0
        self._count = 0
        self._mean_s = 0.0
        self._sum_squares = 0.0  # of the distances from the mean [s^2]
        self._min_s = float("inf")
        self._max_s = 0.0

    def add(self, gap_s: float, count: int = 1) -> None:
        """Adds `count` gaps of `gap_s`."""
        self._single.extend((gap_s, 0.0, 1.0, count))
        if len(self._single) >= 4 * _MAX_PENDING:
            self._flush()

    def add_runs(self, first_s: Floats, slope_s: Floats, num_steps: Floats, counts: Floats) -> None:
        """Adds runs, one per row: `counts` gaps of ``first_s + i * slope_s`` for each i < `num_steps`.

        Takes time by the bins that a run crosses, not by its steps.
        """
        self._pending.append(np.array((first_s, slope_s, num_steps, counts), dtype=np.float64))
        self._num_pending += len(first_s)
        if self._num_pending >= _MAX_PENDING:
            self._flush()

    @property
    def count(self) -> int:
        """Number of gaps so far."""
        self._flush()
        return self._count

    def mean_s(self) -> float:
        """Returns the mean [s], nan without gaps."""
        return self._mean_s if self.count else float("nan")

    def std_s(self) -> float:
        """Returns the population standard deviation [s], nan without gaps."""
        return float(np.sqrt(self._sum_squares / self._count)) if self.count else float("nan")

    def max_s(self) -> float:
        """Returns the longest gap [s], nan without gaps."""
        return self._max_s if self.count else float("nan")

    def percentile_s(self, percent: float) -> float:
        """Returns the percentile [s] to a relative error of `RELATIVE_ERROR`, nan without gaps.

        Interpolates linearly between the two nearest order statistics, as `numpy.percentile` does.
        """
        if not self.count:
            return float("nan")
        rank = percent / 100 * (self._count - 1)
        lower = int(rank)
        below, above = self._order_statistics(np.array([lower, min(lower + 1, self._count - 1)]))
        return float(below + (above - below) * (rank - lower))

    def _order_statistics(self, ranks: NDArray[np.int64]) -> Floats:
        index = np.searchsorted(np.cumsum(self._counts), ranks, side="right")
        middle = np.where(index == 0, 0.0, _SHORTEST_S * BIN_GROWTH ** (index + 0.5))
        return np.clip(middle, self._min_s, self._max_s)

    def _flush(self) -> None:
        single = np.frombuffer(self._single, dtype=np.float64).reshape(-1, 4).T
        runs = np.concatenate((*self._pending, single), axis=1)
        self._single, self._pending, self._num_pending = array("d"), [], 0
        first, slope, steps, counts = runs[:, (runs[2] > 0) & (runs[3] > 0)]
        if not first.size:
            return
        last = first + slope * (steps - 1)
        self._min_s = min(self._min_s, float(np.minimum(first, last).min()))
        self._max_s = max(self._max_s, float(np.maximum(first, last).max()))
        self._merge_moments(first, slope, steps, counts)
        self._merge_bins(np.minimum(first, last), np.abs(slope), steps, counts)

    def _merge_moments(self, first: Floats, slope: Floats, steps: Floats, counts: Floats) -> None:
        """Adds runs to count, mean and sum of squares, without forming a single gap.

        sum i = n (n - 1) / 2 and sum i^2 = (n - 1) n (2 n - 1) / 6 give a run's sums; distances are taken
        from the mean, because sums of raw squares would cancel.
        Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances", Stanford STAN-CS-79-773, 1979 (merging two samples).
        """
        sum_i = steps * (steps - 1) / 2
        sum_i_squared = (steps - 1) * steps * (2 * steps - 1) / 6
        count = float((steps * counts).sum())
        mean = float((counts * (steps * first + slope * sum_i)).sum()) / count
        offset = first - mean
        squares = steps * offset**2 + 2 * offset * slope * sum_i + slope**2 * sum_i_squared
        distance = mean - self._mean_s
        total = self._count + count
        self._sum_squares += max(float((counts * squares).sum()), 0.0)
        self._sum_squares += distance**2 * self._count * count / total
        self._mean_s += distance * count / total
        self._count = int(total)

    def _merge_bins(self, first: Floats, slope: Floats, steps: Floats, counts: Floats) -> None:
        """Adds rising runs to the bins, bin by bin of each run: how many of its gaps lie below an edge."""
        first_bin, last_bin = _bin_index(first), _bin_index(first + slope * (steps - 1))
        is_within = first_bin == last_bin
        self._add_to_bins(first_bin[is_within], (steps * counts)[is_within])
        across = (first_bin, last_bin, first, slope, steps, counts)
        first_bin, last_bin, first, slope, steps, counts = (column[~is_within] for column in across)
        num_bins = last_bin - first_bin + 1
        run = np.repeat(np.arange(len(first)), num_bins)
        position = np.arange(num_bins.sum()) - np.repeat(np.cumsum(num_bins) - num_bins, num_bins)
        index = first_bin[run] + position
        below = np.ceil((self._upper_edges_s[index] - first[run]) / slope[run])
        below = np.where(index == last_bin[run], steps[run], np.clip(below, 0, steps[run]))
        already = np.where(position == 0, 0, np.roll(below, 1))
        self._add_to_bins(index, (below - already) * counts[run])

    def _add_to_bins(self, index: NDArray[np.int64], weights: Floats) -> None:
        self._counts += np.bincount(index, weights=weights, minlength=_NUM_BINS).astype(np.int64)


def _bin_index(gaps: Floats) -> NDArray[np.int64]:
    bins = np.log(np.maximum(gaps, _SHORTEST_S) / _SHORTEST_S) / np.log(BIN_GROWTH)
    index: NDArray[np.int64] = np.minimum(bins.astype(np.int64), _NUM_BINS - 1)
    return index
