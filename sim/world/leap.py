"""A leap: decode-only steps that pass as one event, because nothing can intervene.

In a plain run, step j is decided when step ``j - depth`` has ended, `depth` being the steps in flight. A
leap decides its steps later, all at once, from the same state: it must not go on past the first decision
that an arrival or a step's output can change.
"""

from __future__ import annotations

from math import sqrt

from ...hwmodels.step import DecodeGroup, DecodeLine

Found = tuple[int, int, int]
"""Requests that run, requests that wait, and free blocks."""


class Leap:
    """Steps `after_step` + 1, ... of `decodes`, from `started_at` [s] on, priced by `line`.

    The engine wakes when step `wake_step` ends, at `wake_at` [s]; by then all steps before
    ``wake_step + depth`` have been decided. has_arrival: the decision taken then sees a new request.
    found: what the first step was decided upon, kept for step rows only. An engine has one leap at a time,
    and plans it anew each time.
    """

    __slots__ = (
        "after_step",
        "base_s",
        "decodes",
        "found",
        "has_arrival",
        "line",
        "slope_s",
        "started_at",
        "wake_at",
        "wake_step",
    )

    def __init__(self) -> None:
        self.found: Found | None = None

    def plan(
        self, after_step: int, started_at: float, decodes: DecodeGroup, line: DecodeLine, num_planned: int
    ) -> None:
        """Lets it begin; `num_planned`: steps after which the engine wakes if nothing intervenes."""
        self.after_step = after_step
        self.started_at = started_at
        self.decodes = decodes
        self.line = line
        self.base_s = base_s = line.base_s
        self.slope_s = slope_s = line.slope_s
        self.wake_step = after_step + num_planned
        self.wake_at = started_at + num_planned * base_s + slope_s * (num_planned * (num_planned - 1) // 2)
        self.has_arrival = False

    def end_of(self, num_steps: int) -> float:
        """Returns when the first `num_steps` steps have ended [s]."""
        bends = num_steps * (num_steps - 1) // 2
        return self.started_at + num_steps * self.base_s + self.slope_s * bends

    def first_end_from(self, now: float) -> tuple[int, float]:
        """Returns the first step that ends at `now` or later, and when; ``now >= started_at``."""
        start, base_s, slope_s = self.started_at, self.base_s, self.slope_s
        # num * base + slope * num * (num - 1) / 2 = now - start, rounded up; then the last bit is settled.
        if slope_s > 0:
            linear = base_s - slope_s / 2
            num = int((sqrt(linear * linear + 2 * slope_s * (now - start)) - linear) / slope_s) + 1
        else:
            num = int((now - start) / base_s) + 1
        while num > 1 and start + (num - 1) * base_s + slope_s * ((num - 1) * (num - 2) // 2) >= now:
            num -= 1
        while (end_at := start + num * base_s + slope_s * (num * (num - 1) // 2)) < now:
            num += 1
        return self.after_step + num, end_at
