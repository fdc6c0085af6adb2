"""The one number that a search for goodput turns: how fast a scenario's requests arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...errors import Problem, ScenarioError, TraceError
from ..overrides import apply_overrides
from ..scenario import Scenario, parse_scenario
from ..workload.build import build_demand
from ..workload.demand import Demand
from ..workload.paths import find_data_file
from ..workload.spec import AzureSpec, MooncakeSpec, TableSpec, TraceSpec, VllmBenchSpec

# Played as they are, whatever the seed.
_RECORDED = (AzureSpec, MooncakeSpec, TableSpec, VllmBenchSpec)
_RATE, _SCALE = "workload.arrivals.request_rate", "workload.rate_scale"


@dataclass(frozen=True, slots=True)
class RateKnob:
    """Sets the mean request rate of a scenario.

    path: the field that is set, to request_rate / `requests_per_unit`. start: the scenario's own rate
    [req/s]. is_recorded: the requests are a recorded trace, the same for every seed.
    """

    data: dict[str, Any]
    path: str
    requests_per_unit: float
    start: float
    is_recorded: bool

    def setting(self, request_rate: float) -> float:
        """Returns the value of the field for this rate [req/s]."""
        return request_rate / self.requests_per_unit

    def scenario(self, request_rate: float, seed: int) -> Scenario:
        """Returns the scenario with this rate [req/s] and seed."""
        value = yaml.safe_dump(float(self.setting(request_rate)))
        return parse_scenario(apply_overrides(self.data, [f"{self.path}={value}", f"seed={seed}"]))


def rate_knob(data: dict[str, Any], folder: Path) -> RateKnob:
    """Returns the knob of a scenario, given as plain data; a trace that is absent is its fallback.

    Raises: ScenarioError if the scenario is invalid or its requests have no one rate: a burst, a ramp, or a
    closed loop, where answers set the pace.
    """
    scenario = parse_scenario(data)
    workload = scenario.workload
    if isinstance(workload, TraceSpec) and workload.fallback is not None and _is_absent(workload, folder):
        return rate_knob({**data, "workload": workload.fallback.model_dump(mode="json")}, folder)
    rate = getattr(getattr(workload, "arrivals", None), "request_rate", None)
    scale = getattr(workload, "rate_scale", None)
    demand = build_demand(workload, seed=scenario.seed, base_dir=folder)
    if rate is not None:  # of requests, or of conversations, each of several requests
        ratio = _requests_per_arrival(demand)
        return RateKnob(data, _RATE, ratio, rate * ratio, is_recorded=False)
    if scale is not None:
        mean_rate = _mean_rate(demand)
        return RateKnob(data, _SCALE, mean_rate / scale, mean_rate, isinstance(workload, _RECORDED))
    what = "has no one request rate to search; use poisson, gamma or constant arrivals"
    raise ScenarioError([Problem("$.workload.arrivals.kind", what, _kind(workload))])


def _kind(workload: object) -> str:
    return str(getattr(getattr(workload, "arrivals", workload), "kind", ""))


def _mean_rate(demand: Demand) -> float:
    """Returns the mean rate of recorded arrivals [req/s]. Raises: ScenarioError where there is none."""
    span_s = float(np.ptp(demand.arrived_at)) if len(demand) else 0.0
    if demand.num_clients is not None or span_s == 0:
        what = "are a closed loop or come all at once: there is no request rate to search"
        raise ScenarioError([Problem("$.workload", f"its requests {what}")])
    return (len(demand) - 1) / span_s


def _is_absent(workload: TraceSpec, folder: Path) -> bool:
    try:
        find_data_file(workload.path, folder)
    except TraceError:
        return True
    return False


def _requests_per_arrival(demand: Demand) -> float:
    """Returns how many requests follow from one arrival: the turns of a conversation, else one."""
    if demand.session_id is None:
        return 1.0
    is_alone = demand.session_id < 0
    num_sessions = len(np.unique(demand.session_id[~is_alone]))
    return len(demand) / (num_sessions + int(is_alone.sum()))
