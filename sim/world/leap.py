"""A leap: decode-only steps that pass as one event, because nothing can intervene.

In a plain run, step j is decided when step ``j - depth`` has ended, `depth` being the steps in flight. A
leap decides its steps later, all at once, from the same state: it must not go on past the first decision
that an arrival or a step's output can change.
"""

from __future__ import annotations

from math import sqrt

from ...hwmodels.step import DecodeGroup, DecodeLine


class Leap:
    """Steps `after_step` + 1, ... of `decodes`, from `started_at` [s] on, priced by `line`.

    The engine wakes when step `wake_step` ends; by then all steps before ``wake_step + depth`` have been
    decided. num_running, num_waiting: as they are while the leap goes on. kept_slots, kept_blocks: what
    the first step found taken beyond that, if it was decided before an output set it free. wake_at: end of
    the wake step [s].
    """

    __slots__ = (
        "after_step",
        "decodes",
        "kept_blocks",
        "kept_slots",
        "line",
        "num_running",
        "num_waiting",
        "started_at",
        "wake_at",
        "wake_step",
    )

    def __init__(
        self,
        after_step: int,
        started_at: float,
        decodes: DecodeGroup,
        line: DecodeLine,
        wake_step: int,
        num_running: int,
        num_waiting: int,
    ) -> None:
        self.after_step = after_step
        self.started_at = started_at
        self.decodes = decodes
        self.line = line
        self.wake_step = wake_step
        self.wake_at = self.end_of(wake_step - after_step) if wake_step > after_step else started_at
        self.num_running = num_running
        self.num_waiting = num_waiting
        self.kept_slots = 0
        self.kept_blocks = 0

    def keep_for_first_step(self, num_running: int, num_blocks: int) -> None:
        """Notes that only `num_running` requests and so many blocks less are left after the first step."""
        self.kept_slots, self.kept_blocks = self.num_running - num_running, num_blocks
        self.num_running = num_running

    def end_of(self, num_steps: int) -> float:
        """Returns when the first `num_steps` steps have ended [s]."""
        line = self.line
        return self.started_at + num_steps * line.base_s + line.slope_s * (num_steps * (num_steps - 1) // 2)

    def cut(self, wake_step: int, wake_at: float) -> bool:
        """Ends the leap at a decision that is not its own; returns whether that is earlier than planned."""
        if wake_step >= self.wake_step:
            return False
        self.wake_step, self.wake_at = wake_step, wake_at
        return True

    def steps_ended_by(self, now: float) -> int:
        """Returns the least number of steps whose end is not before `now`."""
        line, elapsed = self.line, now - self.started_at
        if elapsed <= 0:
            return 0
        # num * base + slope * num * (num - 1) / 2 = elapsed
        if line.slope_s > 0:
            linear = line.base_s - line.slope_s / 2
            num_steps = int((sqrt(linear * linear + 2 * line.slope_s * elapsed) - linear) / line.slope_s)
        else:
            num_steps = int(elapsed / line.base_s)
        while num_steps > 0 and self.end_of(num_steps - 1) >= now:
            num_steps -= 1
        while self.end_of(num_steps) < now:
            num_steps += 1
        return num_steps
