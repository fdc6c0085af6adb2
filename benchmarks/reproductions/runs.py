"""What the rows have in common: scenarios as plain data, runs, and the search for a capacity."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate
from simllm.sim.scenario import parse_scenario

Data = dict[str, Any]


def run(workload: Data, *pools: Data, seed: int = 0, **parts: Any) -> Result:
    """Simulates a scenario of one workload and these pools; `parts`: its other fields."""
    data = {"name": "reproduction", "seed": seed, "workload": workload, "pools": list(pools), **parts}
    return simulate(parse_scenario(deepcopy(data)))


def synthetic(num_requests: int, arrivals: Data, prompt_tokens: Data, output_tokens: Data) -> Data:
    """Returns a synthetic workload."""
    return {
        "kind": "synthetic",
        "num_requests": num_requests,
        "arrivals": arrivals,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
    }


def pool(model: str, device: str, scheduler: Data, **fields: Any) -> Data:
    """Returns a pool in fp16, as all but the newest of the sources have."""
    return {"model": model, "device": device, "dtype": "fp16", "scheduler": scheduler, **fields}


def burst() -> Data:
    """Returns the arrival of all requests at once."""
    return {"kind": "burst"}


def poisson(request_rate: float) -> Data:
    """Returns Poisson arrivals."""
    return {"kind": "poisson", "request_rate": request_rate}


def closed_loop(num_clients: int) -> Data:
    """Returns the arrivals of so many clients without think time."""
    return {"kind": "closed_loop", "num_clients": num_clients}


def fixed(tokens: int) -> Data:
    """Returns lengths that are all the same."""
    return {"kind": "fixed", "tokens": tokens}


def capacity(is_met: Callable[[float], bool], *, low: float, high: float, steps: int = 7) -> float:
    """Returns the highest rate that meets an aim, by bisection of its logarithm.

    low: a rate that meets it. high: one that does not; it is doubled until it doesn't.
    """
    while is_met(high):
        low, high = high, 2 * high
    for _ in range(steps):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if is_met(middle) else (low, middle)
    return low
