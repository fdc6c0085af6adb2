"""Does the queue grow through a run? Then no longer run would say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Fewer arrivals in a quarter of the run say nothing of it.
_FEWEST = 10


def load_over_time(requests: pd.DataFrame) -> dict[str, float | None]:
    """Returns how many requests were in the system while they arrived, and how their stay grew.

    mean_in_system: requests. growth: mean time in the system in the last quarter of the arrivals over that
    in the second quarter, less 1; each is the time-average number in the system over the arrival rate, by
    Little's law, so that more arrivals alone are no growth and the end of the run plays no part. None with
    too few.
    A stable system keeps near 0 once it has warmed up; where more arrives than is served, the stay grows
    with time t like (1 - capacity / rate) t.
    Source: J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations Research 9 (1961).
    """
    finished_at = requests["finished_at"].to_numpy(dtype=np.float64, na_value=np.nan)
    arrived_at = requests["arrived_at"].to_numpy(dtype=np.float64, na_value=np.nan)
    served = ~np.isnan(finished_at)
    arrived_at, finished_at = arrived_at[served], finished_at[served]
    span_s = float(arrived_at.max(initial=0.0) - arrived_at.min(initial=np.inf)) if len(arrived_at) else 0.0
    if span_s <= 0:
        return {"mean_in_system": None, "growth": None}
    start = float(arrived_at.min())
    quarters = [start + span_s * place / 4 for place in range(5)]
    whole = _time_inside(arrived_at, finished_at, quarters[0], quarters[4])
    early = _mean_stay_s(arrived_at, finished_at, quarters[1], quarters[2])
    late = _mean_stay_s(arrived_at, finished_at, quarters[3], quarters[4])
    growth = None if early is None or late is None or early <= 0 else late / early - 1
    return {"mean_in_system": whole / span_s, "growth": growth}


def _mean_stay_s(arrived_at: Floats, finished_at: Floats, since: float, until: float) -> float | None:
    num_arrivals = int(((arrived_at >= since) & (arrived_at < until)).sum())
    if num_arrivals < _FEWEST:
        return None
    return _time_inside(arrived_at, finished_at, since, until) / num_arrivals


def _time_inside(arrived_at: Floats, finished_at: Floats, since: float, until: float) -> float:
    """Returns the time that all requests together spent in the system between two instants [s]."""
    inside = np.minimum(finished_at, until) - np.maximum(arrived_at, since)
    return float(np.maximum(inside, 0.0).sum())
