"""How long a collective takes when all ranks do it together: every rank counts and replays alike.

Ranks agree on every number of launches over a group of their own on the CPU: a rank that launched one
collective more than the others would wait forever.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil
from time import perf_counter
from typing import Any, Protocol

import torch

from .timer import Measurement, summarise

WARM_UP_LAUNCHES = 3
# A graph holds about this much work, so that starting it (a few us) is lost in it.
GRAPH_S = 4e-4
MIN_LAUNCHES, MAX_LAUNCHES = 1, 64
# Links carry data at their rate at once; what needs time is the clock of the SMs.
WARM_UP_S = 5e-3
TARGET_S = 5e-2
MIN_REPLAYS, MAX_REPLAYS = 9, 100

Launch = Callable[[], object]
Times = list[float]


class Ranks(Protocol):
    """The ranks' agreement on numbers and on failures."""

    def largest(self, value: float) -> float:
        """Returns the largest value of all ranks."""


class Alone:
    """One process that measures by itself."""

    def largest(self, value: float) -> float:
        """Returns the value."""
        return value


def measure_graph(launch: Launch, ranks: Ranks) -> Measurement:
    """Returns the time of one launch among many in a row in a CUDA graph."""
    once_s = ranks.largest(_warm_up(launch))
    num_launches = min(MAX_LAUNCHES, max(MIN_LAUNCHES, ceil(GRAPH_S / once_s)))
    graph = _capture(launch, num_launches)
    ranks.largest(0.0)
    return _measure(graph.replay, num_launches, ranks)


def measure_eager(launch: Launch, ranks: Ranks) -> Measurement:
    """Returns the time of one launch among many that Python makes one after the other."""
    once_s = ranks.largest(_warm_up(launch))
    num_launches = min(MAX_LAUNCHES, max(MIN_LAUNCHES, ceil(GRAPH_S / once_s)))

    def launch_all() -> None:
        for _ in range(num_launches):
            launch()

    return _measure(launch_all, num_launches, ranks)


def _measure(run: Launch, num_launches: int, ranks: Ranks) -> Measurement:
    """Returns the slowest rank's median; a noisy one is measured once more and the steadier one kept."""
    ranks.largest(0.0)
    once_s = ranks.largest(_timed(run, 1)[0])
    for _ in range(ceil(WARM_UP_S / once_s)):
        run()
    replays = min(MAX_REPLAYS, max(MIN_REPLAYS, ceil(TARGET_S / once_s)))
    first = _agreed(run, replays, num_launches, ranks)
    if not first.is_noisy:
        return first
    again = _agreed(run, 2 * replays, num_launches, ranks)
    return min(first, again, key=lambda result: result.spread)


def _agreed(run: Launch, replays: int, num_launches: int, ranks: Ranks) -> Measurement:
    ranks.largest(0.0)
    result = summarise(_timed(run, replays), num_launches)
    return Measurement(ranks.largest(result.time_s), ranks.largest(result.spread), replays)


def _warm_up(launch: Launch) -> float:
    """Returns the time of one launch [s], roughly, after some that compile and connect."""
    _timed(launch, WARM_UP_LAUNCHES)
    return min(_timed(launch, WARM_UP_LAUNCHES))


def _timed(run: Launch, replays: int) -> Times:
    """Returns the time of each run [s], on the device where there is one."""
    return _timed_on_gpu(run, replays) if torch.cuda.is_available() else _timed_on_cpu(run, replays)


def _timed_on_gpu(run: Launch, replays: int) -> Times:
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)
    ]
    for start, stop in pairs:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(stop) * 1e-3 for start, stop in pairs]


def _timed_on_cpu(run: Launch, replays: int) -> Times:
    instants = [perf_counter()]
    for _ in range(replays):
        run()
        instants.append(perf_counter())
    return [stop - start for start, stop in pairwise(instants)]


def _capture(launch: Launch, num_launches: int) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(num_launches):
            launch()
    return graph
