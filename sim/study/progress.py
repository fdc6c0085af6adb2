"""A progress bar on stderr: points done, how many failed, and when the rest will be."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class StudyBar:
    """Shows how far a study has come; silent where stderr is no terminal. Used in a `with` statement."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("points{task.fields[failed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, failed="")

    def __enter__(self) -> StudyBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, num_done: int, num_failed: int, num_points: int) -> None:
        """Shows how many points are done and failed, of how many."""
        failed = f", {num_failed} failed" if num_failed else ""
        self._progress.update(self._task, completed=num_done, total=num_points, failed=failed)
