"""A progress bar on stderr: simulated time, requests done, and how much faster than real time."""

from __future__ import annotations

from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_REFRESH_S = 0.1


class ProgressBar:
    """Shows how far a run has come; silent where stderr is no terminal. Used in a `with` statement."""

    def __init__(self, num_requests: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.fields[now_s]:,.1f} s simulated"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("requests, {task.fields[speed]:,.0f} times real time"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=num_requests, now_s=0.0, speed=0.0)
        self._started_at = self._shown_at = monotonic()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, now_s: float, num_done: int) -> None:
        """Shows simulated time [s] and finished requests; calls within 0.1 s of the last one are dropped."""
        now = monotonic()
        if self._progress.disable or now - self._shown_at < _REFRESH_S:
            return
        self._shown_at = now
        speed = now_s / (now - self._started_at)
        self._progress.update(self._task, completed=num_done, now_s=now_s, speed=speed, refresh=True)
