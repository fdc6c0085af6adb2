"""Measures the links of this host in processes of their own and keeps every row that they report.

A collective that fails or hangs costs its own row and those like it: its processes end, and new ones go on
with the rest.
"""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from .links_plan import LinkPoint
from .links_samples import LinkSample, read_link_samples, write_link_samples

# The first collective connects all ranks and compiles kernels, which takes tens of seconds.
STALL_S = 90.0
POLL_S = 0.5
JOIN_S = 10.0
SAVE_EVERY = 50  # rows that a crash of the machine can cost

GroupKey = tuple[bool, int]
"""Whether the points are copies of one process, and else how many ranks take part."""


@dataclass(frozen=True, slots=True)
class LinkProgress:
    """How far a measurement is: points done of all, and seconds since its start."""

    num_done: int
    num_points: int
    elapsed_s: float
    last: LinkSample


def measure_links(
    points: Sequence[LinkPoint],
    path: Path,
    *,
    host: Mapping[str, str],
    budget_s: float,
    report: Callable[[LinkProgress], None] = lambda progress: None,
    clock: Callable[[], float] = monotonic,
) -> int:
    """Measures what `path` does not hold yet, until all is done or the budget is spent; returns the new rows.

    Every number of ranks, and the copies, get an equal share of what is left. Whatever ends it (Ctrl-C
    included), the rows measured so far are in the file.
    """
    kept = [sample for sample in (read_link_samples(path)[0] if path.exists() else []) if not sample.error]
    done = {sample.point for sample in kept}
    groups = _by_group([point for point in points if point not in done])
    num_points = sum(map(len, groups.values()))
    started_at = clock()
    fresh: list[LinkSample] = []
    try:
        for place, (key, group) in enumerate(groups.items()):
            left_s = started_at + budget_s - clock()
            deadline = clock() + left_s / (len(groups) - place)
            for sample in _measure_group(key, group, deadline, clock):
                fresh.append(sample)
                report(LinkProgress(len(fresh), num_points, clock() - started_at, sample))
                if len(fresh) % SAVE_EVERY == 0:
                    write_link_samples(path, kept + fresh, host)
    finally:
        if fresh:
            write_link_samples(path, kept + fresh, host)
    return len(fresh)


def _by_group(points: Sequence[LinkPoint]) -> dict[GroupKey, list[LinkPoint]]:
    groups: dict[GroupKey, list[LinkPoint]] = {}
    for point in points:
        key = (point.is_copy, 0 if point.is_copy else point.num_gpus)
        groups.setdefault(key, []).append(point)
    return groups


def _measure_group(
    key: GroupKey, points: Sequence[LinkPoint], deadline: float, clock: Callable[[], float]
) -> Iterator[LinkSample]:
    """Yields samples in the order of points; after a failure, others go on without what failed."""
    left = list(points)
    while left and clock() < deadline:
        with _Processes(key, left) as processes:
            for sample in processes.samples(deadline, clock):
                left.pop(0)
                yield sample
            failure = processes.failure
        if not failure:
            return
        failed = left.pop(0)
        yield LinkSample(failed, error=failure)
        left = [point for point in left if _kind(point) != _kind(failed)]


def _kind(point: LinkPoint) -> tuple[str, str, str]:
    return point.collective, point.implementation, point.mode


class _Processes:
    """The processes that measure one group. failure: why they ended early, empty if they did not."""

    def __init__(self, key: GroupKey, points: Sequence[LinkPoint]) -> None:
        import torch.multiprocessing as multiprocessing

        from .links_worker import run_copies, run_rank

        context = multiprocessing.get_context("spawn")
        self.failure = ""
        self._num_points = len(points)
        self._is_complete = False
        self._results: Any = context.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="simllm-links-")
        is_copies, num_gpus = key
        rendezvous = str(Path(self._folder.name) / "rendezvous")
        if is_copies:
            arguments: list[tuple[Any, ...]] = [(points, self._results)]
        else:
            arguments = [(rank, num_gpus, points, rendezvous, self._results) for rank in range(num_gpus)]
        target = run_copies if is_copies else run_rank
        self._processes = [context.Process(target=target, args=each, daemon=True) for each in arguments]

    def __enter__(self) -> _Processes:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.join(JOIN_S if self._is_complete else 0)
            if process.is_alive():
                process.kill()
                process.join(JOIN_S)
        self._folder.cleanup()

    def samples(self, deadline: float, clock: Callable[[], float]) -> Iterator[LinkSample]:
        """Yields what is reported until all points are there, the deadline passes or something fails."""
        heard_at = clock()
        num_left = self._num_points
        while num_left and clock() < deadline:
            try:
                found = self._results.get(timeout=POLL_S)
            except queue.Empty:
                self.failure = self._why_silent(clock() - heard_at)
                if self.failure:
                    return
                continue
            if isinstance(found, str):
                self.failure = found
                return
            heard_at, num_left = clock(), num_left - 1
            yield found
        self._is_complete = num_left == 0

    def _why_silent(self, silent_s: float) -> str:
        codes = [process.exitcode for process in self._processes]
        if any(codes):
            return f"a process ended with exit code {next(filter(None, codes))}"
        return f"no answer for {silent_s:.0f} s" if silent_s > STALL_S else ""
