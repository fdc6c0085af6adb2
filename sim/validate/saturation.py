"""How close a run came to what the engine can carry: the verdict beside its errors.

Near saturation a bias of one per cent in the step time moves the queue, and so TTFT, by many; there TTFT
says more about luck than about a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...units import MS_PER_S
from ..outcome.results import Result
from ..run import Prepared, simulate_prepared

NEAR, FULL = 0.9, 1.0


@dataclass(frozen=True, slots=True)
class Saturation:
    """The verdict in words, and what it rests on.

    load: of an open loop, the output tokens that its requests ask for per second over the most that the
    simulated engine makes of the same requests; None for a closed loop, which always asks for all.
    waiting_share: of the simulated busy time, the share with requests waiting for admission.
    """

    verdict: str
    load: float | None
    waiting_share: float

    @property
    def is_near(self) -> bool:
        """Whether an open loop asks for 90 % of the capacity or more."""
        return self.load is not None and self.load >= NEAR


def saturation_of(prepared: Prepared, result: Result) -> Saturation:
    """Returns how close a simulated run came to the capacity."""
    waiting_share = _waiting_share(result)
    load = None if prepared.demand.num_clients is not None else _load(prepared)
    return Saturation(verdict(load, waiting_share), load, waiting_share)


def verdict(load: float | None, waiting_share: float) -> str:
    """Returns the verdict; in a closed loop requests only wait long if there are more clients than slots."""
    if load is None:
        return "closed loop, more clients than slots" if waiting_share > 0.5 else "closed loop"
    if load >= FULL:
        return "saturated"
    return "near saturation" if load >= NEAR else "below saturation"


def _load(prepared: Prepared) -> float | None:
    """Returns asked over possible: the possible is measured on the same requests, all sent at once.

    Taken between a tenth and nine tenths of the tokens, so that neither the first prefills nor the last
    answers, which leave the batch ever emptier, count.
    """
    demand = prepared.demand
    span_s = float(demand.arrived_at[-1] - demand.arrived_at[0])
    if span_s <= 0:
        return None
    at_once = replace(demand, arrived_at=np.zeros(len(demand)))
    steps = simulate_prepared(replace(prepared, demand=at_once)).steps
    ended_at = (steps["started_at"] + steps["duration_ms"] / MS_PER_S).to_numpy(dtype=np.float64)
    order = np.argsort(ended_at)  # steps of several replicas come one replica after the other
    ended_at = ended_at[order]
    tokens = np.cumsum(steps["num_sampled"].to_numpy(dtype=np.float64)[order])
    first, last = np.searchsorted(tokens, (0.1 * tokens[-1], 0.9 * tokens[-1]))
    if last <= first:
        return None
    possible_per_s = (tokens[last] - tokens[first]) / (ended_at[last] - ended_at[first])
    return float(demand.output_tokens.sum() / span_s / possible_per_s)


def _waiting_share(result: Result) -> float:
    steps = result.steps
    duration = steps["duration_ms"].to_numpy(dtype=np.float64)
    busy = float(duration.sum())
    return float(duration[steps["num_waiting"].to_numpy() > 0].sum()) / busy if busy else 0.0
