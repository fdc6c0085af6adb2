"""Arithmetic of the metrics: from columns to scalars, each by the formula that `definitions.py` prints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...units import MS_PER_S
from ..world.gaps import GapSketch
from .steps import StepRuns

PERCENTILES = (50, 90, 95, 99)
_STEPS_PER_CHUNK = 1 << 16
STATISTICS = ("mean", "median", "std", *(f"p{percent}" for percent in PERCENTILES))

Floats = NDArray[np.float64]
Scalars = dict[str, float | None]


def latency_scalars(metric: str, values_s: Floats) -> Scalars:
    """Returns mean, median, population deviation and percentiles of `values_s` without its nan [ms].

    Keys are those of `vllm bench serve`, as in `p99_ttft_ms`; all values are None if nothing is left.
    """
    values = values_s[~np.isnan(values_s)] * MS_PER_S
    if not len(values):
        return dict.fromkeys(_keys(metric))
    percentiles = np.percentile(values, PERCENTILES)
    statistics = (values.mean(), percentiles[0], values.std(), *percentiles)
    return dict(zip(_keys(metric), map(float, statistics), strict=True))


def gap_scalars(metric: str, gaps: GapSketch) -> Scalars:
    """Returns the same statistics of pooled gaps [ms]; percentiles to the sketch's stated error."""
    if not gaps.count:
        return dict.fromkeys(_keys(metric))
    percentiles = [gaps.percentile_s(percent) for percent in PERCENTILES]
    statistics = (gaps.mean_s(), percentiles[0], gaps.std_s(), *percentiles)
    return {key: value * MS_PER_S for key, value in zip(_keys(metric), statistics, strict=True)}


def max_concurrent(arrived_at: Floats, finished_at: Floats) -> int:
    """Returns the most intervals [arrived_at, finished_at) that overlap, departures before arrivals."""
    arrivals, departures = np.sort(arrived_at), np.sort(finished_at)
    gone = np.searchsorted(departures, arrivals, side="right")
    return int((np.arange(1, len(arrivals) + 1) - gone).max(initial=0))


def max_tokens_per_s(runs: StepRuns, frontend_out_s: Mapping[int, float], *, since: float) -> float:
    """Returns the output tokens of the busiest second, in buckets of 1 s from `since` [s] on.

    Each step's tokens appear at its end, `frontend_out_s` of its replica later.
    """
    delay_s = np.zeros(max(frontend_out_s, default=-1) + 1)
    delay_s[list(frontend_out_s)] = list(frontend_out_s.values())
    buckets = np.zeros(1)
    for rows in runs.chunks(_STEPS_PER_CHUNK):
        second = (rows.ended_at + delay_s[rows.count("replica")] - since).astype(np.int64)
        tokens = np.bincount(np.maximum(second, 0), weights=rows.count("num_sampled"))
        if len(tokens) > len(buckets):
            buckets = np.concatenate([buckets, np.zeros(len(tokens) - len(buckets))])
        buckets[: len(tokens)] += tokens
    return float(buckets.max())


def ratio(numerator: float, denominator: float | None) -> float | None:
    """Returns the quotient; None where there is nothing to divide by."""
    return numerator / denominator if denominator else None


def _keys(metric: str) -> list[str]:
    return [f"{statistic}_{metric}_ms" for statistic in STATISTICS]
