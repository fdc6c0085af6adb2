"""The way out: from a step's end until the client has its token, by what the step gave to how many.

    delay = out_s + token_s x outputs + first_token_s x first tokens + last_token_s x last tokens

of the step. The front end handles all outputs of a step before any client hears of one, so a token's place
among them does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from ..measured import Floats
from .client_run import ClientRun
from .matching import Ints

CONSTANTS = ("out_s", "token_s", "first_token_s", "last_token_s")


class WayOut(NamedTuple):
    """Tokens that are the first or last of their request, a row each.

    num_requests: of the run. request: whose token it is. is_last: 1 for a last token. causes: 1, and the
    outputs, first and last tokens of its step. delay_s: from the step's end until the client had it.
    """

    num_requests: int
    request: Ints
    is_last: Ints
    causes: Floats
    delay_s: Floats


def way_out_of(run: ClientRun) -> WayOut:
    """Returns the tokens that the record of steps holds; an answer's only token counts once."""
    num_steps, requests = len(run.steps), np.arange(len(run.sent_at))
    firsts = np.bincount(run.first, minlength=num_steps)[:num_steps]
    lasts = np.bincount(run.last, minlength=num_steps)[:num_steps]
    outputs = np.cumsum(firsts) - np.cumsum(lasts) + lasts
    step = np.concatenate([run.first, run.last])
    is_last = np.repeat([0, 1], len(requests))
    token_at = np.concatenate([run.first_token_at, run.ended_at])
    is_another = np.concatenate([np.ones(len(requests), dtype=np.bool_), run.last > run.first])
    counts = is_another & (step < num_steps)
    step = step[counts]
    ended_at = np.array([step.ended_at for step in run.steps])
    return WayOut(
        num_requests=len(requests),
        request=np.tile(requests, 2)[counts],
        is_last=is_last[counts],
        causes=np.column_stack([np.ones(len(step)), outputs[step], firsts[step], lasts[step]]),
        delay_s=token_at[counts] - ended_at[step],
    )


def fit_way_out(tokens: Sequence[WayOut], weights: Sequence[Floats]) -> Floats:
    """Returns the constants [s] in the order of `CONSTANTS`, by least squares, none below 0.

    weights: per run of `tokens` that of each of its requests.
    """
    weight = np.concatenate([own[found.request] for found, own in zip(tokens, weights, strict=True)])
    causes = np.concatenate([found.causes for found in tokens])
    delay_s = np.concatenate([found.delay_s for found in tokens])
    root = np.sqrt(weight)
    fitted, _ = nnls(causes * root[:, None], delay_s * root)
    found: Floats = fitted
    return found
