"""What seeds tell: means with confidence intervals, and differences between policies on the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from ...errors import SimllmError, nearest_choice
from .defaults import CONFIDENCE

if TYPE_CHECKING:
    import pandas as pd


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval; both nan for a single value, which has none."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean of independent values with its two-sided confidence interval.

    Valid: values near normal, or many. Source: Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    standard_error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * standard_error
    return Interval(mean, mean - reach, mean + reach)


def lower_bound(values: Sequence[float], confidence: float) -> float:
    """Returns what the mean of independent values exceeds with this confidence; for one value, that value."""
    if len(values) < 2:
        return float(np.mean(values))
    standard_error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values) - stats.t.ppf(confidence, len(values) - 1) * standard_error)


def intervals(
    frame: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Returns a row per point and metric: mean, ends of the interval, deviation and number of its seeds."""
    rows = []
    for cells, group in _groups(frame, axes):
        for metric in metrics:
            values = group[metric].dropna().astype(float).tolist()
            if values:
                std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
                interval = t_interval(values, confidence)._asdict()
                rows.append({**cells, "metric": metric, **interval, "std": std, "num_seeds": len(values)})
    return _frame(rows, [*axes, "metric", *Interval._fields, "std", "num_seeds"])


def paired_differences(
    frame: pd.DataFrame,
    axes: Sequence[str],
    axis: str,
    baseline: Any,
    metrics: Sequence[str],
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Returns how each other value of an axis differs from the baseline, all else and the seed equal.

    Points of one seed play the same requests, so that what is luck in them cancels: the interval is that of
    the mean of the seeds' differences, mostly far narrower than that of the difference of two means.
    share: the mean difference over the baseline's mean.
    Source: A. M. Law, Simulation Modeling and Analysis, 5th ed., section 11.2 (common random numbers).
    Raises: SimllmError for an axis or a value that the study has not.
    """
    _check_baseline(frame, axes, axis, baseline)
    others = [name for name in axes if name != axis]
    keys = [*others, "seed"]
    is_base = frame[axis] == baseline
    base = frame.loc[is_base, [*keys, *metrics]]
    rows = []
    for value, part in frame[~is_base].groupby(axis, sort=False, dropna=False):
        pairs = part.merge(base, on=keys, suffixes=("", "_baseline"))
        for cells, group in _groups(pairs, others):
            for metric in metrics:
                row = _difference(group[metric], group[f"{metric}_baseline"], confidence)
                if row is not None:
                    rows.append({**cells, axis: value, "baseline": baseline, "metric": metric, **row})
    return _frame(rows, [*others, axis, "baseline", "metric", *Interval._fields, "share", "num_seeds"])


def _difference(
    values: pd.Series[Any], baselines: pd.Series[Any], confidence: float
) -> dict[str, float] | None:
    pairs = np.column_stack([values.to_numpy(np.float64), baselines.to_numpy(np.float64)])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return None
    interval = t_interval((pairs[:, 0] - pairs[:, 1]).tolist(), confidence)
    base = float(pairs[:, 1].mean())
    share = interval.mean / base if base else float("nan")
    return {**interval._asdict(), "share": share, "num_seeds": len(pairs)}


def _check_baseline(frame: pd.DataFrame, axes: Sequence[str], axis: str, baseline: Any) -> None:
    if axis not in axes:
        nearest = nearest_choice(axis, axes)
        hint = "" if nearest is None else f"; did you mean {nearest!r}?"
        raise SimllmError(f"{axis}: is no axis of this study; its axes are {', '.join(axes) or 'none'}{hint}")
    values = list(dict.fromkeys(frame[axis]))
    if baseline not in values:
        raise SimllmError(f"{axis}: has no value {baseline!r}; it has {', '.join(map(str, values))}")


def _groups(frame: pd.DataFrame, axes: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Returns the rows of each combination of the axes' values, in the order in which they first appear."""
    if not axes:
        return [({}, frame)] if len(frame) else []
    groups = frame.groupby(list(axes), sort=False, dropna=False)
    return [(dict(zip(axes, key, strict=True)), group) for key, group in groups]


def _frame(rows: list[dict[str, Any]], names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(names))
