"""How far a study has come, counted in points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from .orders import Answer
from .points import Point

OnProgress = Callable[[int, int, int], None]


class Tally:
    """Counts the points that are done and those that failed, and reports each change."""

    def __init__(
        self, points: Sequence[Point], answers: Mapping[str, Answer], on_progress: OnProgress | None
    ) -> None:
        """Counts what is known before anything runs; on_progress(num_done, num_failed, num_points)."""
        # Points that are the same scenario are answered at once; those that are none, from the beginning.
        self._points_of = Counter(point.digest for point in points if point.payload is not None)
        self._num_points = len(points)
        self._num_failed = self._num_done = len(points) - self._points_of.total()
        self._on_progress = on_progress
        for digest in self._points_of:
            if digest in answers:
                self._count(answers[digest])
        self._report()

    def add(self, answer: Answer) -> None:
        """Counts an answer."""
        self._count(answer)
        self._report()

    def _count(self, answer: Answer) -> None:
        count = self._points_of[answer.key]
        self._num_done += count
        self._num_failed += count if answer.row is None else 0

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._num_done, self._num_failed, self._num_points)
