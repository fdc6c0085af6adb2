"""Requests that found the engine idle: when they woke it, which the record tells to the instant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .client_run import ClientRun


class Wake(NamedTuple):
    """The step that a request woke an idle engine for, and the request, both by their places."""

    step: int
    request: int


def wakes_of(run: ClientRun) -> list[Wake]:
    """Returns the wakes of an engine that had answered all requests which it had seen."""
    answered_by = np.maximum.accumulate(run.last)
    found = []
    for request, step in enumerate(run.seen.tolist()):
        if step >= len(run.steps):
            break
        is_first = not request or run.seen[request - 1] < step
        is_idle = not run.steps[step].is_busy and (not request or answered_by[request - 1] < step)
        if is_first and is_idle:
            found.append(Wake(step, request))
    return found
