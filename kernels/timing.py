"""How long a launch takes on the device: medians of events, with the L2 flushed or with rotating buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch

# Many times the L2 of any GPU of today (B200: 126 MB), so that a flush evicts everything; and at 4 TB/s it
# lasts 0.25 ms, longer than the host needs to prepare any launch here.
FLUSH_BYTES = 2**30
WARM_UP_RUNS = 3
MIN_RUNS, MAX_RUNS = 10, 200


def flushed_median_s(launch: Callable[[], object], *, budget_s: float = 0.15) -> float:
    """Returns the median device time of `launch` [s], with a cold L2 before every run.

    The flush also keeps the device busy while the host prepares the launch, so launch gaps stay out.
    """
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(WARM_UP_RUNS):
        launch()
    once_s = _timed_s(launch, flush)
    runs = min(MAX_RUNS, max(MIN_RUNS, int(budget_s / max(once_s, 1e-6))))
    pairs = [(_event(), _event()) for _ in range(runs)]
    for start, stop in pairs:
        flush.zero_()
        start.record()
        launch()
        stop.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(stop) for start, stop in pairs) * 1e-3


def graph_median_s(launches: Sequence[Callable[[], object]], *, replays: int = 30) -> float:
    """Returns the median time of one launch [s] in replays of a CUDA graph that holds them all in a row.

    launches: the same work over different buffers, together larger than L2 where a cold cache is wanted.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for launch in launches:
            launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for launch in launches:
            launch()
    pairs = [(_event(), _event()) for _ in range(replays)]
    graph.replay()
    for start, stop in pairs:
        start.record()
        graph.replay()
        stop.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(stop) for start, stop in pairs) * 1e-3 / len(launches)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _timed_s(launch: Callable[[], object], flush: torch.Tensor) -> float:
    start, stop = _event(), _event()
    flush.zero_()
    start.record()
    launch()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) * 1e-3
