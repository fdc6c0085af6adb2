"""Measures the points of a plan within a budget and appends them to a file that may hold some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
class Sweep:
    """How far a sweep is. num_done: points of the plan that the file holds; num_new: those of this run.

    num_noisy, num_failed: of the new ones, those that stayed noisy and those that their kernels refused.
    last: the newest row, None if there is none.
    """

    num_points: int
    num_done: int
    num_new: int = 0
    num_noisy: int = 0
    num_failed: int = 0
    elapsed_s: float = 0.0
    last: Sample | None = None

    def then(self, sample: Sample, elapsed_s: float) -> Sweep:
        """Returns the state after one more row."""
        return Sweep(
            self.num_points,
            self.num_done + 1,
            self.num_new + 1,
            self.num_noisy + sample.is_noisy,
            self.num_failed + (not sample.is_usable),
            elapsed_s,
            sample,
        )


def sweep(
    points: Sequence[OpPoint],
    path: Path,
    measurer: Measurer,
    *,
    host: Mapping[str, str],
    budget_s: float,
    report: Callable[[Sweep], None] = lambda state: None,
    clock: Callable[[], float] = monotonic,
) -> Sweep:
    """Measures what is not in `path` yet, until all is done or the budget is spent.

    Whatever ends it (Ctrl-C included), the rows measured so far are in the file.
    """
    done = _measured(path)
    left = [point for point in points if point not in done]
    state = Sweep(len(points), len(points) - len(left))
    started_at = clock()
    fresh: list[Sample] = []
    try:
        for point in left:
            if clock() - started_at >= budget_s:
                break
            fresh.append(_measure_one(point, measurer, clock))
            state = state.then(fresh[-1], clock() - started_at)
            report(state)
            if len(fresh) >= PART_SAMPLES:
                append_part(path, fresh, host)
                fresh = []
    finally:
        if fresh:
            append_part(path, fresh, host)
        if parts_folder(path).exists():
            merge(path)
    return state


def _measured(path: Path) -> set[OpPoint]:
    if not path.exists() and not parts_folder(path).exists():
        return set()
    return {sample.point for sample in read_samples(path)[0]}


def _measure_one(point: OpPoint, measurer: Measurer, clock: Callable[[], float]) -> Sample:
    """Returns the sample of a point; a kernel that refuses a size is a row with its error, not the end."""
    needed = work(point)
    started_at = clock()
    try:
        timing = measurer(point)
    except CalibrationError:
        raise
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        return Sample(
            point, 0.0, 0.0, 0, False, needed.flops, needed.hbm_bytes,
            error=what, wall_s=clock() - started_at,
        )  # fmt: skip
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
        clock_before_mhz=timing.clock_before_mhz,
        power_before_w=timing.power_before_w,
        wall_s=clock() - started_at,
        **asdict(timing.compiled),
    )
