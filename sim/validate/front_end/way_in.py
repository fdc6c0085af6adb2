"""The way in: from a request's sending until the engine first sees it.

    delay = wait for the requests before it + request_s + prompt_token_s x prompt tokens + in_s

The record tells a delay exactly where a lone request woke an idle engine, and else between two decisions:
the last that had not seen it, and the first that had. The constants are those under which what was recorded
is likeliest, if delays scatter about the law by a logistic distribution.
Source: the likelihood of interval-censored data, e.g. G. Gomez, M. L. Calle, R. Oller, K. Langohr, "Tutorial
on methods for interval-censored data and their implementation in R", Statistical Modelling 9 (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ..measured import Floats
from .client_run import ClientRun
from .matching import Ints
from .wakes import wakes_of

CONSTANTS = ("request_s", "prompt_token_s", "in_s")
# Bounds of the constants and of the scatter [s], where the search starts, and the units that it is made in.
_BOUNDS = np.array([(0.0, 5e-3), (0.0, 5e-6), (0.0, 10e-3), (10e-6, 2e-3)])
START = np.array([0.2e-3, 0.1e-6, 0.9e-3, 0.1e-3])
_UNITS = np.array([1e-3, 1e-6, 1e-3, 1e-3])
# To within this time the decision of an idle engine is its request's arrival [s].
_EXACT_S = 0.05e-3
# Share of requests that something else holds up, for up to 20 ms, all delays as likely.
_HELD_UP, _HELD_UP_S = 0.02, 20e-3


class WayIn(NamedTuple):
    """Requests in the order of sending, a row each.

    after_s, until_s: the delay lies between. is_known: 0 for those that came after the end of the record.
    """

    sent_at: Floats
    prompt_tokens: Ints
    after_s: Floats
    until_s: Floats
    is_known: Floats


def way_in_of(run: ClientRun) -> WayIn:
    """Returns what the record tells of each request's way in."""
    is_known = run.seen < len(run.steps)
    decided_at = np.array([0.0, *(step.scheduled_at for step in run.steps), np.inf])
    after_s, until_s = decided_at[run.seen] - run.sent_at, decided_at[run.seen + 1] - run.sent_at
    for wake in wakes_of(run):
        following = wake.request + 1
        if following == len(run.sent_at) or run.sent_at[following] > run.steps[wake.step].scheduled_at:
            after_s[wake.request] = until_s[wake.request] - _EXACT_S
            until_s[wake.request] += _EXACT_S
    return WayIn(run.sent_at, run.prompt_tokens, after_s, until_s, is_known.astype(float))


def queued_after_s(sent_at: Floats, prompt_tokens: Ints, constants: Floats) -> Floats:
    """Returns how long after its sending each request is in the engine's queue [s].

    constants: in the order of `CONSTANTS`. One request is served after the other; c_i is the service of the
    i-th and C_i that of the first i, so it is served at max(s_j - C_(j-1), j <= i) + C_i.
    """
    request_s, prompt_token_s, in_s = constants[:3]
    service_s = request_s + prompt_token_s * prompt_tokens
    total_s = np.cumsum(service_s)
    delay_s: Floats = np.maximum.accumulate(sent_at - (total_s - service_s)) + total_s - sent_at + in_s
    return delay_s


def fit_way_in(runs: Sequence[WayIn], weights: Sequence[Floats], start: Floats) -> Floats:
    """Returns the constants in the order of `CONSTANTS`, then the scatter [s], by maximum likelihood.

    weights: per run of `runs` that of each of its requests. start: where to search from.
    """
    after_s = np.concatenate([run.after_s for run in runs])
    until_s = np.concatenate([run.until_s for run in runs])
    weight = np.concatenate([own * run.is_known for run, own in zip(runs, weights, strict=True)])
    spread = _HELD_UP * np.clip((until_s - after_s) / _HELD_UP_S, 0.0, 1.0)

    def unlikelihood(scaled: Floats) -> float:
        values = scaled * _UNITS
        law_s = np.concatenate([queued_after_s(run.sent_at, run.prompt_tokens, values) for run in runs])
        inside = expit((until_s - law_s) / values[3]) - expit((after_s - law_s) / values[3])
        return -float(weight @ np.log(np.maximum((1 - _HELD_UP) * inside + spread, 1e-12)))

    bounds = _BOUNDS / _UNITS[:, None]
    options = {"xatol": 1e-4, "fatol": 1e-6, "maxiter": 2000}
    found = minimize(unlikelihood, start / _UNITS, method="Nelder-Mead", bounds=bounds, options=options)
    values: Floats = found.x * _UNITS
    return values
