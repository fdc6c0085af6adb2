"""How long a launch takes inside a CUDA graph: the median over replays, and how far they spread.

An engine's decode steps are replays of such graphs, so the gap to the next kernel is part of the time.
Rotating buffers keep weights and caches cold: every launch of the graph reads another copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from math import ceil
from statistics import median
from typing import Any

import numpy as np

MIN_REPLAYS, MAX_REPLAYS = 5, 80
# An engine keeps its GPU busy for seconds. Matrix products then draw all the power there is, and the clock
# settles some tens of ms after their start, where an H200 is 15 % slower: only what comes after is measured.
WARM_UP_S = 0.1
TARGET_S = 0.04
# Interquartile range over median, beyond which a point is measured again, longer, and then flagged.
NOISY_SPREAD = 0.03
REPEATS = 2
LOOK_LAUNCHES, LOOK_REPLAYS = 16, 3
# A graph holds about this much work, so that starting it (a few us) is lost in it.
GRAPH_S = 5e-4
MAX_LAUNCHES = 64


Launch = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measurement:
    """time_s: median time of one launch. spread: interquartile range over median. num_runs: replays.

    clock_mhz, power_w: of the SMs and the whole board, while the replays ran; 0 if not read.
    """

    time_s: float
    spread: float
    num_runs: int
    clock_mhz: float = 0.0
    power_w: float = 0.0

    @property
    def is_noisy(self) -> bool:
        """Whether the replays disagree by more than a few percent."""
        return self.spread > NOISY_SPREAD


def summarise(times_s: Sequence[float], launches: int) -> Measurement:
    """Returns median and spread of replays that hold `launches` launches each."""
    low, high = np.percentile(times_s, (25, 75))
    middle = median(times_s)
    return Measurement(middle / launches, float(high - low) / middle, len(times_s))


def fastest(alternatives: Sequence[Sequence[Launch]]) -> Sequence[Launch]:
    """Returns the alternative that a short look finds fastest; one that the kernel refuses is passed over.

    Raises: whatever the last one raised, if all are refused.
    """
    if len(alternatives) == 1:
        return alternatives[0]
    looks: list[tuple[float, int]] = []
    refusal: Exception | None = None
    for place, launches in enumerate(alternatives):
        try:
            graph, num_launches = _capture(launches[:LOOK_LAUNCHES])
            looks.append((min(_replay_s(graph, LOOK_REPLAYS)) / num_launches, place))
        except (RuntimeError, ValueError) as error:
            refusal = error
    if not looks:
        raise refusal or ValueError("no alternatives")
    return alternatives[min(looks)[1]]


def measure(launches: Sequence[Launch]) -> Measurement:
    """Returns the time of one launch, averaged over a graph that holds them all in a row.

    launches: the same work over different buffers. Noisy results are measured again; the best one is kept.
    """
    graph, num_launches = _capture(launches)
    once_s = _replay_s(graph, 1)[0]
    for _ in range(ceil(WARM_UP_S / once_s)):
        graph.replay()
    replays = min(MAX_REPLAYS, max(MIN_REPLAYS, int(TARGET_S / once_s)))
    best = _measure_once(graph, replays, num_launches)
    for _ in range(REPEATS):
        if not best.is_noisy:
            break
        again = _measure_once(graph, 2 * replays, num_launches)
        best = min(best, again, key=lambda result: result.spread)
    return best


def _measure_once(graph: Any, replays: int, num_launches: int) -> Measurement:
    import torch

    pairs = _enqueue(graph, replays)
    clock_mhz, power_w = torch.cuda.clock_rate(), torch.cuda.power_draw() / 1e3
    return replace(summarise(_elapsed_s(pairs), num_launches), clock_mhz=clock_mhz, power_w=power_w)


def _capture(launches: Sequence[Launch]) -> tuple[Any, int]:
    """Returns a graph of all launches, over and over until it is long enough, and how many it holds."""
    import torch

    stream = torch.cuda.Stream()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(stream):
        launches[0]()  # compiles
        start.record()
        launches[-1]()
        stop.record()
    torch.cuda.synchronize()
    wanted = min(MAX_LAUNCHES, ceil(GRAPH_S / (start.elapsed_time(stop) * 1e-3)))
    rounds = ceil(wanted / len(launches))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for launch in chain.from_iterable(repeat(launches, rounds)):
            launch()
    return graph, rounds * len(launches)


def _replay_s(graph: Any, replays: int) -> list[float]:
    return _elapsed_s(_enqueue(graph, replays))


def _enqueue(graph: Any, replays: int) -> list[tuple[Any, Any]]:
    import torch

    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(replays)
    ]
    for start, stop in pairs:
        start.record()
        graph.replay()
        stop.record()
    return pairs


def _elapsed_s(pairs: Sequence[tuple[Any, Any]]) -> list[float]:
    pairs[-1][1].synchronize()
    return [start.elapsed_time(stop) * 1e-3 for start, stop in pairs]
