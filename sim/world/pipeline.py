"""The stages of one replica in time: when a step enters and leaves each of them.

A step enters a stage when it has left the one before and the step ahead has left this one. Where sampled
tokens go back to the first stage on the GPU (vLLM with asynchronous scheduling), a step that samples any is
through before the next one begins: the stages then compute one after another.
"""

from __future__ import annotations

from typing import NamedTuple

from ...hwmodels.execution import Execution
from ...hwmodels.pipeline_step import PassedStage, PipelineStepModel, launched_before, whole_cost
from ...hwmodels.power import PowerLimit
from ...hwmodels.step import DecodeGroup, StepCost, StepShape

_KEPT_ENDS = 8  # steps per stage whose ends are remembered: requests go on long before


class Passage(NamedTuple):
    """One step on its way through: when it began, when its output was there, and what it cost."""

    started_at: float
    ended_at: float
    cost: StepCost


class Pipeline:
    """The stages of one replica, with the clock of each one's GPUs."""

    def __init__(self, model: PipelineStepModel, power: PowerLimit | None) -> None:
        self.num_stages = len(model.stages)
        self._model = model
        self._executions = [Execution(stage, power) for stage in model.stages]
        self._left_at = [0.0] * self.num_stages
        self._returned_at = 0.0  # when the first stage has the tokens of the last step that sampled any
        self._worked_s = 0.0
        self._busy_until = 0.0  # up to which decodes have been noted to the clocks
        self._ended_at: dict[int, float] = {}  # of the last few steps

    def bubble_share(self, busy_s: float) -> float | None:
        """Returns the share of the stages' time with steps in flight in which they computed nothing.

        busy_s: time with steps in flight [s].
        """
        return max(0.0, 1.0 - self._worked_s / (self.num_stages * busy_s)) if busy_s else None

    @property
    def has_clock(self) -> bool:
        """Whether the clock falls under load."""
        return self._executions[0].has_clock

    @property
    def is_at_full_clock(self) -> bool:
        """Whether decodes take as long as their cost says in every stage."""
        return all(execution.is_at_full_clock for execution in self._executions)

    def run(self, step: int, shape: StepShape, decided_at: float, start_at: float) -> Passage:
        """Lets a step pass the stages, behind those ahead of it; steps are numbered from 1 on.

        decided_at: when launches of all stages begin [s]. start_at: before which it cannot start [s].
        """
        passed: list[PassedStage] = []
        has_prompts = bool(shape.chunks)
        at_full_clock = [] if has_prompts else [one for one in self._executions if one.is_at_full_clock]
        may_enter_at = max(start_at, self._returned_at)
        handover_s = self._model.handover_s(shape.num_padded_tokens)
        for stage, cost in enumerate(self._model.stage_costs(shape)):
            entered_at = max(may_enter_at, self._left_at[stage])
            own = self._run_stage(stage, cost, decided_at, entered_at, has_prompts=has_prompts)
            left_at = self._left_at[stage] = entered_at + own.duration_s
            passed.append(PassedStage(entered_at, left_at, own))
            may_enter_at = left_at + handover_s
            self._worked_s += own.duration_s
        ended_at = passed[-1].left_at
        return_s = self._model.return_s(shape.num_sampled)
        if return_s:
            self._returned_at = ended_at = ended_at + return_s
        started_at = passed[0].entered_at
        for execution in at_full_clock:
            execution.decode(max(started_at, self._busy_until), ended_at)
        self._busy_until = ended_at
        self._ended_at[step] = ended_at
        self._ended_at.pop(step - _KEPT_ENDS * self.num_stages, None)
        return Passage(started_at, ended_at, whole_cost(passed, ended_at))

    def ended_at(self, step: int) -> float | None:
        """Returns when one of the last few steps ended, None for an older one [s]."""
        return self._ended_at.get(step)

    def decode(self, started_at: float, ended_at: float) -> float:
        """Notes decodes alone, many steps at once, at full clock."""
        self._left_at = [ended_at] * self.num_stages
        self._returned_at = self._busy_until = ended_at
        return sum(execution.decode(started_at, ended_at) for execution in self._executions)

    def leapt(self, decodes: DecodeGroup, num_steps: int, duration_s: float) -> None:
        """Adds the work of `num_steps` decode steps in a row that took `duration_s` in all [s]."""
        num_tokens = self._model.cuda_graph.pad(decodes.count)
        between_s = (self.num_stages - 1) * self._model.handover_s(num_tokens)
        between_s += self._model.return_s(decodes.count)
        self._worked_s += duration_s - num_steps * between_s

    def _run_stage(
        self, stage: int, cost: StepCost, decided_at: float, entered_at: float, *, has_prompts: bool
    ) -> StepCost:
        """Returns what a step costs in a stage, its launches and the clock included.

        SIMPLIFIED: at full clock, decodes count as busy in every stage all the while; effect: the clock of
        prompts right after long answers falls some ms too early.
        """
        execution = self._executions[stage]
        if has_prompts:
            return execution.run(cost, decided_at, entered_at)
        if stage:
            cost = launched_before(cost, entered_at - decided_at)
        return cost if execution.is_at_full_clock else execution.run_decodes(cost, entered_at)
