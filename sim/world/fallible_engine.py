"""An engine that may crash, or run on a GPU that has become slow: what it needs beyond `Engine`.

SIMPLIFIED: the steps in flight at a crash are in the tables as if they had ended; effect: one step or two per
crash too many in a replica's busy time and work. A slow GPU slows the steps that are decided from then on;
effect: one step or two late.
"""

from __future__ import annotations

from ...hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepModel, StepShape
from ..policy.moves import Move
from .engine import Engine
from .leap import Found, Leap


class PacedStepModel:
    """A step model whose steps take `factor` times as long; 1 while the GPU is well."""

    def __init__(self, model: StepModel) -> None:
        self._model = model
        self.factor = 1.0

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the cost terms."""
        return self._model.terms

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step, as slow as the GPU is now."""
        cost = self._model.predict(shape)
        return cost if self.factor == 1.0 else cost.over(cost.duration_s * self.factor)

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the cost of the coming decode steps, as slow as the GPU is now."""
        line, factor = self._model.decode_line(decodes, max_steps), self.factor
        if factor == 1.0:
            return line
        return line._replace(
            base_s=line.base_s * factor,
            slope_s=line.slope_s * factor,
            base_terms=tuple(term * factor for term in line.base_terms),
            slope_terms=tuple(term * factor for term in line.slope_terms),
        )


class FallibleEngine(Engine):
    """An engine that faults may hit; its step model is a `PacedStepModel`."""

    def pace(self, paced: PacedStepModel) -> None:
        """Takes the step model by which `slow` slows it; to be called before anything happens."""
        self.step_model = paced
        self._paced = paced
        self._factor_before: float | None = None  # at which a leap's steps until its end are decided
        self._has_crashed = False

    def slow(self, factor: float) -> None:
        """Lets steps decided from now on take `factor` times as long as on a GPU that is well."""
        if self._is_leaping:
            self._cut(self._leap)
            if self._factor_before is None:
                self._factor_before = self._paced.factor
        self._paced.factor = factor

    def crash(self) -> None:
        """Stops it for good, now: nothing that it was to do happens any more."""
        if self._knows_time:
            self.scheduler.now = self._clock.now
        if self._is_leaping:
            self._count_decided(self._leap)
        self._is_leaping = False
        self._flights.clear()
        self._held = None
        self._alarm.ticket = -1
        self._has_crashed = True
        if self._mover is not None:
            # SIMPLIFIED: KV that it was moving still arrives, also of the step in flight; effect: tiers that
            # it shares have up to a step's blocks more of it.
            after, self._after = self._after, []
            for move in after:
                self._mover.start(move, self._moved)
            self._start_moves(None)

    def _count_decided(self, leap: Leap) -> None:
        """Counts the leap's steps that a plain run has decided by now."""
        now, depth = self._clock.now, self._depth
        num_in_flight = sum(handled_at >= now for _, handled_at, *_ in self._flights)
        if num_in_flight or now < leap.started_at:
            num_decided = max(depth - num_in_flight, 0)
        else:
            num_decided = leap.first_end_from(now)[0] - 1 + depth - leap.after_step
        num_steps = min(num_decided, leap.line.num_steps)
        if num_steps:
            self._commit(leap, num_steps)
        if num_steps < num_decided:
            self._leap_on(True, leap.found)
        self._factor_before = None

    def _land(self, leap: Leap) -> bool:
        leaps_on = super()._land(leap)
        self._factor_before = None
        return leaps_on

    def _leap_on(self, has_arrival: bool, found: Found | None) -> bool:
        factor, before = self._paced.factor, self._factor_before
        if before is not None:
            self._paced.factor = before
        leaps_on = super()._leap_on(has_arrival, found)
        self._paced.factor = factor
        return leaps_on

    def _moved(self, move: Move) -> None:
        if not self._has_crashed:
            super()._moved(move)
            return
        self.scheduler.moved(move)  # a shared tier waits for nobody who is gone
        self._start_moves(None)
