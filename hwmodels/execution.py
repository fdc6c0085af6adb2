"""Steps as one replica's hardware runs them: the CPU launches, the GPU computes, power sets its clock.

What a step costs by itself (`StepCost`) assumes that its launches begin when the step before has ended, and
a clock that has settled. Launched earlier, it waits less; after a pause, it runs at full clock for a while.
"""

from __future__ import annotations

from .power import PowerLimit, PowerState
from .step import StepCost, StepModel

_LAUNCH, _POWER = "launch", "power_limit"


class Execution:
    """What one step's time owes to those before it: launches that overlap them, and the GPU's clock."""

    def __init__(self, model: StepModel, power: PowerLimit | None) -> None:
        """power: None if the clock does not fall under load."""
        self._launch = model.terms.index(_LAUNCH) if _LAUNCH in model.terms else None
        self._limited = model.terms.index(_POWER) if _POWER in model.terms else None
        self._limit = power
        self._power = None if power is None or self._limited is None else PowerState(power)
        self._ended_at = 0.0
        self._launched_at = 0.0

    def run(self, cost: StepCost, launched_from: float, started_at: float) -> StepCost:
        """Returns the cost of a step with prompts, whose launches begin before it can start [s].

        launched_from: when they begin, unless those of the step before still last. started_at: when the GPU
        is free for the step.
        """
        limited_s = 0.0 if self._limited is None else cost.terms[self._limited]
        full_clock_s = cost.duration_s - cost.waiting_s - limited_s
        lowered_s = self._lowered_s(limited_s, full_clock_s, started_at)
        busy_s = full_clock_s + lowered_s
        self._launched_at = launched_at = max(launched_from, self._launched_at) + cost.cpu_s
        waiting_s = max(0.0, launched_at - started_at - busy_s)
        if lowered_s != limited_s or waiting_s != cost.waiting_s:
            terms = list(cost.terms)
            if self._launch is not None:
                terms[self._launch] += waiting_s - cost.waiting_s
            if self._limited is not None:
                terms[self._limited] = lowered_s
            cost = cost._replace(duration_s=busy_s + waiting_s, terms=tuple(terms), waiting_s=waiting_s)
        self._ended_at = started_at + cost.duration_s
        return cost

    @property
    def has_clock(self) -> bool:
        """Whether the clock falls under load."""
        return self._power is not None

    @property
    def is_at_full_clock(self) -> bool:
        """Whether decodes take as long as their cost says."""
        return self._power is None or self._power.level <= 0.0

    def run_decodes(self, cost: StepCost, started_at: float) -> StepCost:
        """Returns the cost of a step of decodes alone, the first ones after prompts maybe.

        SIMPLIFIED: all that the clock adds until it is back is added to the first such step; effect: that
        step is some ms too long, those of the next 0.1 s as much too short together.
        """
        if self._power is None or self._limited is None:
            return cost
        self._power.rest(max(0.0, started_at - self._ended_at))
        added_s = self._power.recover_s()
        self._power.added_s(0.0, cost.duration_s)
        if added_s:
            terms = list(cost.terms)
            terms[self._limited] += added_s
            cost = cost._replace(duration_s=cost.duration_s + added_s, terms=tuple(terms))
        self._ended_at = started_at + cost.duration_s
        return cost

    def decode(self, started_at: float, ended_at: float) -> float:
        """Runs decodes alone, from `started_at` to `ended_at` [s] at full clock, one step or many at once.

        Returns how much later they end because the clock is still low after prompts [s].
        Their launches begin when the step before has ended. Memory binds them: they lower no clock.
        """
        if self._power is None:
            return 0.0
        self._power.rest(max(0.0, started_at - self._ended_at))
        added_s = self._power.added_s(0.0, ended_at - started_at)
        self._ended_at = ended_at + added_s
        return added_s

    def _lowered_s(self, limited_s: float, full_clock_s: float, started_at: float) -> float:
        """Returns what the clock adds to a step [s]; `limited_s` if it had settled before."""
        if self._power is None or self._limit is None:
            return limited_s
        self._power.rest(max(0.0, started_at - self._ended_at))
        matrix_s = limited_s / self._limit.slowdown
        return self._power.added_s(matrix_s, max(0.0, full_clock_s - matrix_s))
