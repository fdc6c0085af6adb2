"""A progress bar on stderr: points done, what is being measured, and the time that remains."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .sweep import Sweep


class SweepBar:
    """Shows how far a sweep has come; silent where stderr is no terminal. Used in a `with` statement."""

    def __init__(self, budget_s: float, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._budget_s = budget_s
        self._progress = Progress(
            TextColumn("{task.fields[what]:40}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("points, {task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, what="", left="?")

    def __enter__(self) -> SweepBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, result: Sweep) -> None:
        """Shows the state of a sweep."""
        if result.last is None:
            return
        point = result.last.point
        self._progress.update(
            self._task,
            total=result.num_points,
            completed=result.num_done,
            what=f"{point.op} {point.implementation} {point.dtype}",
            left=clock_text(remaining_s(result, self._budget_s)),
        )

    def refresh(self) -> None:
        """Draws the bar now."""
        self._progress.refresh()


def remaining_s(result: Sweep, budget_s: float) -> float:
    """Returns how long a sweep goes on [s]: until all points are done, or the budget is spent."""
    num_left = result.num_points - result.num_done
    at_this_pace_s = result.elapsed_s / max(1, result.num_new) * num_left
    return max(0.0, min(at_this_pace_s, budget_s - result.elapsed_s))


def clock_text(seconds: float) -> str:
    """Returns minutes and seconds: `7:05`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
