"""Fits the front end's constants to recorded runs: one set for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....hwmodels.front_end_profile import (
    FrontEndConstant,
    FrontEndConstants,
    FrontEndProfile,
    FrontEndRun,
)
from ..measured import Floats
from . import way_in, way_out
from .bootstrap import SEED, equal_weights, interval
from .burst import bursts_of, fit_hold
from .client_run import ClientRun
from .turnaround import turnarounds_of
from .way_in import WayIn, fit_way_in, queued_after_s, way_in_of
from .way_out import WayOut, fit_way_out, way_out_of

_DIGITS = 3  # of a constant: the same files give the same bytes


def fit_front_end(recorded: Sequence[ClientRun]) -> FrontEndProfile:
    """Returns the constants of all runs, each with its confidence, and what they make of each run."""
    runs = sorted(recorded, key=lambda run: run.name)  # so that the order of the files does not matter
    ways_in, ways_out = [way_in_of(run) for run in runs], [way_out_of(run) for run in runs]
    found = {**_way_in(ways_in), **_way_out(ways_out)}
    law = np.array([found[name].value for name in way_in.CONSTANTS])
    queued = [run.sent_at + queued_after_s(run.sent_at, run.prompt_tokens, law) for run in runs]
    hold = fit_hold(
        burst for run, queued_at in zip(runs, queued, strict=True) for burst in bursts_of(run, queued_at)
    )
    if hold is not None:
        found["hold_s"] = _constant(hold.value_s, hold.low_s, hold.high_s, hold.num_bursts)
    turnaround = _turnaround([gaps for run in runs if len(gaps := turnarounds_of(run))])
    if turnaround is not None:
        found["turnaround_s"] = turnaround
    constants = FrontEndConstants(**found)
    told = (_run(*columns, constants) for columns in zip(runs, ways_in, ways_out, strict=True))
    return FrontEndProfile(constants=constants, runs=tuple(told))


def _way_in(runs: Sequence[WayIn]) -> dict[str, FrontEndConstant]:
    sizes = [len(run.sent_at) for run in runs]
    best = fit_way_in(runs, equal_weights(sizes), way_in.START)
    # Each draw searches from elsewhere: what the runs do not tell apart stays there, and shows as uncertain.
    rng = np.random.default_rng(SEED)
    ends = interval(
        lambda weights: fit_way_in(runs, weights, way_in.START * rng.uniform(0.5, 1.5, len(best))), sizes
    )
    num_requests = int(sum(run.is_known.sum() for run in runs))
    return _constants(way_in.CONSTANTS, best, ends, num_requests)


def _way_out(runs: Sequence[WayOut]) -> dict[str, FrontEndConstant]:
    sizes = [run.num_requests for run in runs]
    best = fit_way_out(runs, equal_weights(sizes))
    ends = interval(lambda weights: fit_way_out(runs, weights), sizes)
    return _constants(way_out.CONSTANTS, best, ends, sum(len(run.delay_s) for run in runs))


def _turnaround(runs: Sequence[Floats]) -> FrontEndConstant | None:
    """Returns the median gap of the closed loops, None if there are none."""
    if not runs:
        return None
    sizes, gaps_s = [len(gaps) for gaps in runs], np.concatenate(runs)

    def median(weights: Sequence[Floats]) -> Floats:
        return np.array([_weighted_median(gaps_s, np.concatenate(weights))])

    ends = interval(median, sizes)
    return _constants(("turnaround_s",), median(equal_weights(sizes)), ends, len(gaps_s))["turnaround_s"]


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _constants(
    names: Sequence[str], best: Floats, ends: tuple[Floats, Floats], num_observations: int
) -> dict[str, FrontEndConstant]:
    rows = zip(names, best.tolist(), ends[0].tolist(), ends[1].tolist(), strict=False)  # the scatter is none
    return {name: _constant(value, low, high, num_observations) for name, value, low, high in rows}


def _constant(value: float, low: float, high: float, num_observations: int) -> FrontEndConstant:
    """Returns a rounded constant; the times are never negative."""
    value, low, high = (_rounded(max(0.0, end)) for end in (value, min(low, value), max(high, value)))
    return FrontEndConstant(value=value, low=low, high=high, num_observations=num_observations)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _run(run: ClientRun, came: WayIn, went: WayOut, constants: FrontEndConstants) -> FrontEndRun:
    """Returns what the constants make of one run."""
    laws = {name: constant.value for name, constant in constants.items().items()}
    law_s = queued_after_s(
        run.sent_at, run.prompt_tokens, np.array([laws[name] for name in way_in.CONSTANTS])
    )
    missed_s = np.maximum(0.0, np.maximum(came.after_s - law_s, law_s - came.until_s))[came.is_known > 0]
    errors_s = went.causes @ np.array([laws[name] for name in way_out.CONSTANTS]) - went.delay_s
    first_s, last_s = (errors_s[went.is_last == kind] for kind in (0, 1))
    return FrontEndRun(
        run=run.name,
        num_requests=len(run.sent_at),
        way_in_miss_s=_rounded(float(missed_s.mean())),
        first_token_error_s=_rounded(float(first_s.mean())) if len(first_s) else None,
        last_token_error_s=_rounded(float(last_s.mean())) if len(last_s) else None,
    )
