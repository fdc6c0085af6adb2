"""How long a client of a closed loop takes from its answer's last token to its next request."""

from __future__ import annotations

import numpy as np

from ..measured import Floats
from .client_run import ClientRun


def turnarounds_of(run: ClientRun) -> Floats:
    """Returns the gaps [s] of a closed loop, none of an open one.

    Whichever client is free first sends next, so the n-th answer sets off the n-th request beyond the first
    of each client.
    """
    if run.num_clients is None:
        return np.empty(0)
    sent_at, ended_at = np.sort(run.sent_at)[run.num_clients :], np.sort(run.ended_at)
    gaps_s: Floats = sent_at - ended_at[: len(sent_at)]
    return gaps_s
