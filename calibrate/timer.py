"""How long a launch takes inside a CUDA graph: the median over replays, and how far they spread.

An engine's decode steps are replays of such graphs, so the gap to the next kernel is part of the time.
Rotating buffers keep weights and caches cold: every launch of the graph reads another copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from math import ceil
from statistics import median
from typing import Any

import numpy as np

from .compiled import NOT_COMPILED, Compiled


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a graph is replayed before it is timed [s] and while it is [s], in at most `max_replays`."""

    warm_up_s: float
    target_s: float
    max_replays: int


# An engine keeps its GPU busy for seconds. Matrix products then draw all the power there is, and the clock
# settles some tens of ms after their start, where an H200 is 15 % slower: only what comes after is measured.
BRIEF = Effort(warm_up_s=0.1, target_s=0.04, max_replays=80)
# Long enough for temperature and voltage to settle, too: under the power limit both move the clock.
SUSTAINED = Effort(warm_up_s=1.0, target_s=1.0, max_replays=4000)
MIN_REPLAYS = 5
# Interquartile range over median, beyond which a point is measured again, longer, and then flagged.
NOISY_SPREAD = 0.03
# The same for launches from Python, whose pace is the host's and not the GPU's.
NOISY_HOST_SPREAD = 0.1
REPEATS = 2
LOOK_LAUNCHES, LOOK_REPLAYS = 16, 3
# A graph holds about this much work, so that starting it (a few us) is lost in it.
GRAPH_S = 5e-4
MAX_LAUNCHES = 64
EAGER_LAUNCHES, EAGER_ROUNDS = 500, 25


Launch = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measurement:
    """time_s: median time of one launch. spread: interquartile range over median. num_runs: replays.

    clock_mhz, power_w: of the SMs and the whole board, while the replays ran; `before`: before the warm-up;
    0 if not read.
    """

    time_s: float
    spread: float
    num_runs: int
    clock_mhz: float = 0.0
    power_w: float = 0.0
    clock_before_mhz: float = 0.0
    power_before_w: float = 0.0
    compiled: Compiled = NOT_COMPILED
    noisy_spread: float = NOISY_SPREAD

    @property
    def is_noisy(self) -> bool:
        """Whether the replays disagree by more than `noisy_spread`."""
        return self.spread > self.noisy_spread


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


def measure(launches: Sequence[Launch], effort: Effort = BRIEF) -> Measurement:
    """Returns the time of one launch, averaged over a graph that holds them all in a row.

    launches: the same work over different buffers. Noisy results are measured again; the best one is kept.
    """
    graph, num_launches = _capture(launches)
    clock_mhz, power_w = _clock_and_power()
    once_s = _replay_s(graph, 1)[0]
    for _ in range(ceil(effort.warm_up_s / once_s)):
        graph.replay()
    replays = min(effort.max_replays, max(MIN_REPLAYS, int(effort.target_s / once_s)))
    best = steadiest(partial(_measure_once, graph, num_launches), replays)
    return replace(best, clock_before_mhz=clock_mhz, power_before_w=power_w)


def steadiest(measure_once: Callable[[int], Measurement], replays: int) -> Measurement:
    """Returns the first result that is not noisy, else the one of the least spread after some repeats.

    Repeats are twice as long.
    """
    best = measure_once(replays)
    for _ in range(REPEATS):
        if not best.is_noisy:
            break
        best = min(best, measure_once(2 * replays), key=lambda result: result.spread)
    return best


def measure_eager(launch: Launch) -> Measurement:
    """Returns the time between launches that Python makes one after the other, without a graph."""
    import torch

    for _ in range(EAGER_LAUNCHES):
        launch()
    clock_mhz, power_w = _clock_and_power()
    pairs = []
    for _ in range(EAGER_ROUNDS):
        torch.cuda.synchronize()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(EAGER_LAUNCHES):
            launch()
        stop.record()
        pairs.append((start, stop))
    result = summarise(_elapsed_s(pairs), EAGER_LAUNCHES)
    return replace(result, clock_before_mhz=clock_mhz, power_before_w=power_w, noisy_spread=NOISY_HOST_SPREAD)


def _clock_and_power() -> tuple[float, float]:
    """Returns the clock of the SMs [MHz] and the power of the board [W], as they are now."""
    import torch

    return torch.cuda.clock_rate(), torch.cuda.power_draw() / 1e3


def _measure_once(graph: Any, num_launches: int, replays: int) -> Measurement:
    pairs = _enqueue(graph, replays)
    clock_mhz, power_w = _clock_and_power()
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
