"""Whose request it is: tenants drawn by their shares, all turns of a session for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .demand import Demand
from .streams import stream


def with_tenants(demand: Demand, shares: Sequence[float], seed: int) -> Demand:
    """Returns the demand with a tenant for each request, or for each session; as it is without shares."""
    if not shares:
        return demand
    rows = np.arange(len(demand))
    if demand.session_id is not None:
        # Who has no session is drawn alone.
        owners = np.where(demand.session_id >= 0, demand.session_id, -1 - rows)
        rows = np.unique(owners, return_inverse=True)[1]
    chances = np.array(shares) / sum(shares)
    drawn = stream(seed, "tenants").choice(len(shares), size=int(rows.max(initial=0)) + 1, p=chances)
    return replace(demand, tenant=drawn[rows].astype(np.int64))
