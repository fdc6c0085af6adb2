"""Inter-token latencies of one request, recovered from the step rows.

A decoding request gets one token at the end of every step, so its tokens came at the step ends from its
first token to its last. Where that does not hold the answer is an error, never a guess.
"""

from __future__ import annotations

import numpy as np

from ...errors import SimllmError
from ..world.recorder import Recorder, Status
from .rows import Floats, RequestRows
from .steps import StepRuns

_TOLERANCE = 1e-9  # of an instant: its sum in closed form and step by step differ by rounding


def inter_token_latencies(rows: RequestRows, runs: StepRuns, request_id: int, recorder: Recorder) -> Floats:
    """Returns the gaps between the tokens of one request [s], (output_tokens - 1,), as its steps ended.

    Raises: SimllmError for a request that is unknown, did not finish, was preempted, has several samples, or
    missed a step.
    """
    if not 0 <= request_id < len(rows):
        raise SimllmError(f"request {request_id}: the run has requests 0 to {len(rows) - 1}")
    if rows.status[request_id] != Status.FINISHED:
        raise SimllmError(f"request {request_id}: did not finish, so its token times are unknown")
    if rows.num_preemptions[request_id]:
        raise SimllmError(f"request {request_id}: was preempted, so its token times are not the step ends")
    first, last = recorder.first_step_ended_at[request_id], recorder.last_step_ended_at[request_id]
    if rows.num_sequences[request_id] > 1:
        raise SimllmError(f"request {request_id}: has several samples, whose token times differ")
    ends = _step_ends(runs, int(rows.replica[request_id]), first, last)
    gaps: Floats = np.diff(ends)
    if len(gaps) != rows.output_tokens[request_id] - 1:
        raise SimllmError(f"request {request_id}: got no token in some step, so its token times are unknown")
    return gaps


def _step_ends(runs: StepRuns, replica: int, first: float, last: float) -> Floats:
    """Returns the ends of one replica's steps from instant `first` to instant `last`, both included."""
    own = runs.of_replica(replica)
    started_at = runs.started_at[own]
    # The step that ends at `first` began before it; by rounding its successor may seem to have, too.
    start = max(int(np.searchsorted(started_at, first)) - 2, 0)
    stop = int(np.searchsorted(started_at, last, side="right"))
    ended_at = runs.expand(slice(own.start + start, own.start + stop)).ended_at
    slack = _TOLERANCE * max(last, 1.0)
    return ended_at[(ended_at >= first - slack) & (ended_at <= last + slack)]
