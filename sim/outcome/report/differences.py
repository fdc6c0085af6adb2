"""How latencies of one run differ from another's, and how sure that is: a bootstrap over requests.

Requests that follow each other share queues and batches, so whole stretches of the run are drawn again, not
single requests. Runs that served the same requests are compared stretch by stretch.
Source: H. Kuensch, "The jackknife and the bootstrap for general stationary observations", Annals of
Statistics 17 (1989); B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), section
13.3: percentile intervals.
SIMPLIFIED: stretches of a hundredth of the requests; effect: intervals too narrow if backlogs last longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .run_folder import Run

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
METRICS = ("ttft", "tpot", "e2el")
STATISTICS = ("mean", "p50", "p99")
_NUM_RESAMPLES = 500
_NUM_STRETCHES = 100
# SIMPLIFIED: evenly picked from longer runs; effect: their intervals are a little too wide.
_MAX_REQUESTS = 50_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of `run` minus that of `baseline` [ms]; relative: over the baseline's. low, high: interval.

    is_paired: the runs served the same requests, which were drawn together. Ends are None where a run has too
    few requests to tell.
    """

    run: str
    baseline: str
    metric: str
    statistic: str
    difference_ms: float
    low_ms: float | None
    high_ms: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    is_paired: bool

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low_ms is not None and self.high_ms is not None and (self.low_ms > 0 or self.high_ms < 0)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Returns the differences of each run from the first, in the order of runs, metrics and statistics."""
    return [found for run in runs[1:] for metric in METRICS for found in _of_metric(run, runs[0], metric)]


def same_requests(run: Run, other: Run) -> bool:
    """Returns whether two runs served the same requests, whenever these arrived."""
    columns = ["session_id", "turn", "prompt_tokens", "requested_output_tokens"]
    return run.requests[columns].equals(other.requests[columns])


def _of_metric(run: Run, baseline: Run, metric: str) -> Iterator[Difference]:
    is_paired = same_requests(run, baseline)
    keys = [f"{statistic}_{metric}_ms" for statistic in STATISTICS]
    ours, theirs = ([one.summary[key] for key in keys] for one in (run, baseline))
    if None in ours or None in theirs:
        return
    ends = _intervals(run, baseline, metric, is_paired=is_paired)
    for place, statistic in enumerate(STATISTICS):
        difference, base = ours[place] - theirs[place], theirs[place]
        low, high, relative_low, relative_high = (
            None if np.isnan(end) else float(end) for end in ends[place]
        )
        relative = difference / base if base else None
        yield Difference(
            run.name, baseline.name, metric, statistic,
            difference, low, high, relative, relative_low, relative_high, is_paired,
        )  # fmt: skip


def _intervals(run: Run, baseline: Run, metric: str, *, is_paired: bool) -> Floats:
    """Returns ends of the difference [ms] and of the relative one: (num_statistics, 4), nan for unknown."""
    ours, theirs = _Sample(run.requests, metric), _Sample(baseline.requests, metric)
    if min(ours.num_stretches, theirs.num_stretches) < 2:
        return np.full((len(STATISTICS), 4), np.nan)
    rng = np.random.default_rng(0)
    drawn = np.empty((_NUM_RESAMPLES, 2, len(STATISTICS)))
    for resample in drawn:
        counts = ours.draw(rng)
        resample[0] = ours.statistics(counts)
        resample[1] = theirs.statistics(counts if is_paired else theirs.draw(rng))
    ours_ms, theirs_ms = drawn[:, 0], drawn[:, 1]
    gaps = ours_ms - theirs_ms
    ratios = np.full_like(gaps, np.nan)
    np.divide(gaps, theirs_ms, out=ratios, where=theirs_ms > 0)
    tail = (1 - CONFIDENCE) / 2
    return np.concatenate(
        [np.quantile(values, [tail, 1 - tail], axis=0).T for values in (gaps, ratios)], axis=1
    )


class _Sample:
    """A metric of a run's completed requests, sorted, with the stretch of the run that each belongs to."""

    def __init__(self, requests: pd.DataFrame, metric: str) -> None:
        every = -(-len(requests) // _MAX_REQUESTS) or 1
        picked = requests.iloc[::every]
        self.num_stretches = min(_NUM_STRETCHES, len(picked))
        stretch = np.arange(len(picked)) * self.num_stretches // max(len(picked), 1)
        values = picked[f"{metric}_ms"].to_numpy(np.float64)
        known = (picked["status"] == "finished").to_numpy() & ~np.isnan(values)
        order = np.argsort(values[known], kind="stable")
        self._values, self._stretch = values[known][order], stretch[known][order]

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Returns how often each stretch is drawn."""
        return rng.multinomial(self.num_stretches, np.full(self.num_stretches, 1 / self.num_stretches))

    def statistics(self, counts: NDArray[np.int64]) -> Floats:
        """Returns mean, p50 and p99 of the sample with each stretch so often; nan if it is empty."""
        weights = counts[self._stretch]
        until = np.cumsum(weights)
        total = int(until[-1]) if len(until) else 0
        if not total:
            return np.full(len(STATISTICS), np.nan)
        # As numpy interpolates: at the fractional place percent * (total - 1) of the sorted, repeated values.
        places = np.array([0.5, 0.99]) * (total - 1)
        below, above = (
            self._values[np.searchsorted(until, end(places), side="right")] for end in (np.floor, np.ceil)
        )
        share = places - np.floor(places)
        return np.array([np.dot(weights, self._values) / total, *(below + share * (above - below))])
