"""Bursts into an idle engine: how much later it begins while more requests are on their way in.

The input thread keeps the interpreter busy while messages come, so the first step of a burst begins late
and holds more than the request that woke the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..measured import Floats
from .client_run import ClientRun
from .wakes import wakes_of


class Burst(NamedTuple):
    """The first step of a burst, as instants from the first request's arrival in the queue [s].

    begun_s: when it was decided. low_s, high_s: a decision between them holds the requests that it held.
    """

    begun_s: float
    low_s: float
    high_s: float


class Hold(NamedTuple):
    """The hold [s], the ends of the values that give as many recorded first steps, and how many bursts."""

    value_s: float
    low_s: float
    high_s: float
    num_bursts: int


def bursts_of(run: ClientRun, queued_at: Floats) -> list[Burst]:
    """Returns the bursts of a run; `queued_at`: when its requests reach the queue [s], by the fitted law."""
    found = []
    for step, request in wakes_of(run):
        following, woken_at = request + 1, queued_at[request]
        if following < len(queued_at) and run.sent_at[following] <= woken_at < queued_at[following]:
            num_held = int((run.admitted == step).sum())
            missed = request + num_held
            # A full step would have held no more, however late.
            is_full = run.steps[step].num_tokens >= run.max_num_batched_tokens
            high_s = np.inf if is_full or missed >= len(queued_at) else queued_at[missed] - woken_at
            low_s = queued_at[missed - 1] - woken_at
            found.append(Burst(run.steps[step].scheduled_at - woken_at, float(low_s), float(high_s)))
    return found


def fit_hold(bursts: Iterable[Burst]) -> Hold | None:
    """Returns the hold: the median time by which bursts began late, among those that give the most of the
    recorded first steps. None if there was no burst."""
    found = list(bursts)
    if not found:
        return None
    begun_s = [max(0.0, burst.begun_s) for burst in found]
    median_s = float(np.median(begun_s))
    ranges = _best_ranges(found, longest_s=max(begun_s))
    low_s, high_s = min(ranges, key=lambda ends: abs(float(np.clip(median_s, *ends)) - median_s))
    return Hold(float(np.clip(median_s, low_s, high_s)), low_s, high_s, len(found))


def _best_ranges(bursts: Sequence[Burst], longest_s: float) -> list[tuple[float, float]]:
    """Returns the ranges of holds that as many bursts agree with as with any other."""
    agreeing = {
        burst.low_s: [other for other in bursts if other.low_s <= burst.low_s < other.high_s]
        for burst in bursts
    }
    most = max(map(len, agreeing.values()))
    ends = (
        (low_s, min(other.high_s for other in those))
        for low_s, those in agreeing.items()
        if len(those) == most
    )
    return sorted((low_s, max(low_s, min(high_s, longest_s))) for low_s, high_s in ends)
