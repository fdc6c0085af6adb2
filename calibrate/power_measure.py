"""Plays sequences of steps on the current GPU and times each, while the driver tells power and clock."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any

import torch

from .power_layers import LLAMA_8B, Transformer
from .power_plan import GRAPHS, REST_S, SEQUENCES, StepGraph, Turn
from .power_samples import PowerSample

POLL_S = 0.02
WARM_UP = 3  # eager runs before a step is captured: kernels compile and libraries choose theirs
# Replays that are enqueued before the last but these has ended, so that the CPU stays just ahead.
AHEAD = 16
SHARE_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Played:
    """One step as it ran: when it started, how long it took, how long the GPU was idle before it [s]."""

    started_s: float
    time_s: float
    pause_s: float


class DriverWatch:
    """Reads power [W] and SM clock [MHz] every 20 ms in a thread of its own, in a `with` statement."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._instants: list[float] = []
        self._readings: list[tuple[float, float]] = []
        self._stop = Event()
        self._thread = Thread(target=self._poll, daemon=True)

    def __enter__(self) -> DriverWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, instant_s: float) -> tuple[float, float]:
        """Returns the last power and clock read by then, the first ones if none was."""
        return self._readings[max(0, bisect_right(self._instants, instant_s) - 1)]

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            self._readings.append((torch.cuda.power_draw() / 1e3, float(torch.cuda.clock_rate())))
            self._instants.append(self._now())


def measure_power(report: Callable[[str, int, int], None]) -> list[PowerSample]:
    """Returns the steps of all sequences. report: told each one's name, its place and how many there are."""
    model = Transformer(LLAMA_8B, torch.device("cuda"), torch.bfloat16)
    graphs = {graph.name: _capture(_step(model, graph)) for graph in GRAPHS}
    shares = {graph.name: _matrix_share(model, graph, graphs[graph.name]) for graph in GRAPHS}
    began_at = time.monotonic()

    def now() -> float:
        return time.monotonic() - began_at

    samples: list[PowerSample] = []
    with DriverWatch(now) as watch:
        for number, (name, turns) in enumerate(SEQUENCES.items()):
            report(name, number, len(SEQUENCES))
            samples += rows_of(name, turns, _play(turns, graphs, now), shares, watch.at)
    return samples


def rows_of(
    name: str,
    turns: Sequence[Turn],
    played: Sequence[Played],
    shares: dict[str, float],
    reading_at: Callable[[float], tuple[float, float]],
) -> list[PowerSample]:
    """Returns the rows of one sequence. reading_at: power and clock as they were told at an instant."""
    known = {graph.name: graph for graph in GRAPHS}
    rows = []
    for place, (turn, step) in enumerate(zip(turns, played, strict=True)):
        graph, (power_w, clock_mhz) = known[turn.graph], reading_at(step.started_s + step.time_s)
        rows.append(
            PowerSample(
                sequence=name,
                place=place,
                graph=graph.name,
                kind=graph.kind,
                num_tokens=graph.num_tokens,
                matrix_share=shares[graph.name],
                pause_s=step.pause_s,
                started_s=step.started_s,
                time_ms=step.time_s * 1e3,
                power_w=power_w,
                clock_mhz=clock_mhz,
            )
        )
    return rows


def _step(model: Transformer, graph: StepGraph) -> Callable[[], object]:
    make = model.prefill if graph.kind == "prefill" else model.decode
    return make(graph.num_tokens, graph.context_len)


@dataclass(frozen=True, slots=True)
class _Captured:
    """A CUDA graph, and the step whose tensors it reads: they must live as long as the graph is replayed."""

    graph: Any
    run: Callable[[], object]

    def replay(self) -> None:
        """Runs the step."""
        self.graph.replay()


def _capture(run: Callable[[], object]) -> _Captured:
    """Returns one step as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return _Captured(graph, run)


def _matrix_share(model: Transformer, graph: StepGraph, whole: _Captured) -> float:
    """Returns how much of a step's time at full clock its products and attention take; none of a decode's."""
    if graph.kind == "decode":
        return 0.0
    alone = _capture(model.products(graph.num_tokens, graph.context_len))
    return min(1.0, _fastest_ms(alone) / _fastest_ms(whole))


def _fastest_ms(graph: _Captured) -> float:
    """Returns the fastest of single replays, each after a rest."""
    times = []
    for _ in range(SHARE_ROUNDS):
        torch.cuda.synchronize()
        time.sleep(REST_S / SHARE_ROUNDS)
        start, stop = _events(), _events()
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return float(min(times))


def _play(turns: Sequence[Turn], graphs: dict[str, _Captured], now: Callable[[], float]) -> list[Played]:
    """Runs a sequence after a rest; steps without a pause between them follow each other on the GPU."""
    torch.cuda.synchronize()
    time.sleep(REST_S)
    pairs = [(_events(), _events()) for _ in turns]
    began_s = now()
    for place, turn in enumerate(turns):
        if turn.pause_s:
            torch.cuda.synchronize()
            time.sleep(turn.pause_s)
        elif place >= AHEAD:
            pairs[place - AHEAD][1].synchronize()
        pairs[place][0].record()
        graphs[turn.graph].replay()
        pairs[place][1].record()
    torch.cuda.synchronize()
    first = pairs[0][0]
    starts_s = [first.elapsed_time(start) * 1e-3 for start, _ in pairs]
    ends_s = [first.elapsed_time(stop) * 1e-3 for _, stop in pairs]
    return [
        Played(began_s + start_s, end_s - start_s, start_s - before_s)
        for start_s, end_s, before_s in zip(starts_s, ends_s, [0.0, *ends_s], strict=False)
    ]


def _events() -> Any:
    return torch.cuda.Event(enable_timing=True)
