"""Measures the points of a plan within a budget and appends them to a file that may hold some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol

from ..errors import CalibrationError
from ..hwmodels.op_point import OpPoint, work
from ..units import US
from .samples import Sample, append_part, merge, parts_folder, read_samples
from .timer import Measurement

PART_SAMPLES = 40  # rows that a crash of the machine can cost


class Measurer(Protocol):
    """Times one point. Raises any error that its kernels raise."""

    def __call__(self, point: OpPoint) -> Measurement: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: points done of all, and seconds since its start."""

    num_done: int
    num_points: int
    elapsed_s: float
    last: Sample


def sweep(
    points: Sequence[OpPoint],
    path: Path,
    measurer: Measurer,
    *,
    host: Mapping[str, str],
    budget_s: float,
    report: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = monotonic,
) -> int:
    """Measures what is not in `path` yet, until all is done or the budget is spent; returns the new rows.

    Whatever ends it (Ctrl-C included), the rows measured so far are in the file.
    """
    done = _measured(path)
    left = [point for point in points if point not in done]
    started_at = clock()
    fresh: list[Sample] = []
    num_new = 0
    try:
        for point in left:
            if clock() - started_at >= budget_s:
                break
            fresh.append(_measure_one(point, measurer))
            num_new += 1
            report(Progress(num_new, len(left), clock() - started_at, fresh[-1]))
            if len(fresh) >= PART_SAMPLES:
                append_part(path, fresh, host)
                fresh = []
    finally:
        if fresh:
            append_part(path, fresh, host)
        if parts_folder(path).exists():
            merge(path)
    return num_new


def _measured(path: Path) -> set[OpPoint]:
    if not path.exists() and not parts_folder(path).exists():
        return set()
    return {sample.point for sample in read_samples(path)[0]}


def _measure_one(point: OpPoint, measurer: Measurer) -> Sample:
    """Returns the sample of a point; a kernel that refuses a size is a row with its error, not the end."""
    needed = work(point)
    try:
        timing = measurer(point)
    except CalibrationError:
        raise
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        return Sample(point, 0.0, 0.0, 0, False, needed.flops, needed.hbm_bytes, error=what)
    return Sample(
        point,
        time_us=timing.time_s / US,
        spread=timing.spread,
        num_runs=timing.num_runs,
        is_noisy=timing.is_noisy,
        flops=needed.flops,
        hbm_bytes=needed.hbm_bytes,
        clock_mhz=timing.clock_mhz,
        power_w=timing.power_w,
    )
