"""When recorded steps would have ended on the modelled hardware: the same batches, predicted times.

Scheduling follows the record: a step that was decided when the output of an earlier one came is decided so
again. What is left to differ is the cost of steps, the launching thread, and the clock under load.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.execution import Execution
from ...hwmodels.pipeline_step import PipelineStepModel
from ...hwmodels.power import PowerLimit
from ...hwmodels.step import StepModel
from ..world.pipeline import Pipeline
from .recorded_steps import RecordedStep
from .step_times import shape_of

# A decision that comes within this time of an output was triggered by it.
_TRIGGERED_S = 1e-3


def emulate(
    steps: Sequence[RecordedStep],
    model: StepModel,
    graphs: CudaGraphSizes,
    *,
    power: PowerLimit | None,
    depth: int,
    launches_in_engine: bool,
    schedule_s: float,
) -> list[float]:
    """Returns when the output of each step is handled [s].

    depth: steps in flight. launches_in_engine: the thread that handles outputs launches the steps, too, so
    that a long launch delays the output of the step before. schedule_s: what deciding prompts takes where no
    step in flight hides it; a synchronous engine's step costs hold it already.
    """
    if isinstance(model, PipelineStepModel):
        return _through_stages(steps, model, graphs, power=power, depth=depth, schedule_s=schedule_s)
    execution = Execution(model, power)
    free_at = thread_free_at = 0.0
    decided: list[float] = []
    handled: list[float] = []
    for place, step in enumerate(steps):
        now = max(_decided_at(place, steps, decided, handled, depth), thread_free_at)
        cost = model.predict(shape_of(step, graphs))
        started_at = max(now, free_at)
        if step.chunks:
            if depth > 1 and not step.is_busy:
                started_at += schedule_s
            if launches_in_engine:
                thread_free_at = now + cost.cpu_s
                if step.is_busy and place:
                    handled[-1] = max(handled[-1], thread_free_at)
            cost = execution.run(cost, now, started_at)
        free_at = started_at + cost.duration_s
        if not step.chunks:
            free_at += execution.decode(started_at, free_at)
        decided.append(now)
        handled.append(free_at)
    return handled


def _through_stages(
    steps: Sequence[RecordedStep],
    model: PipelineStepModel,
    graphs: CudaGraphSizes,
    *,
    power: PowerLimit | None,
    depth: int,
    schedule_s: float,
) -> list[float]:
    """Returns the same for pipeline stages, whose workers launch."""
    pipeline = Pipeline(model, power)
    decided: list[float] = []
    handled: list[float] = []
    for place, step in enumerate(steps):
        now = _decided_at(place, steps, decided, handled, depth)
        start_at = now + schedule_s if step.chunks and depth > 1 and not step.is_busy else now
        decided.append(now)
        handled.append(pipeline.run(place + 1, shape_of(step, graphs), now, start_at).ended_at)
    return handled


def _decided_at(
    place: int,
    steps: Sequence[RecordedStep],
    decided: Sequence[float],
    handled: Sequence[float],
    depth: int,
) -> float:
    """Returns when a step is decided: with the output that triggered it, or as long after as recorded."""
    if not place:
        return steps[0].scheduled_at
    step, trigger = steps[place], place - depth
    if trigger >= 0:
        lag_s = step.scheduled_at - steps[trigger].ended_at
        if 0 <= lag_s < _TRIGGERED_S:
            return handled[trigger]
    if step.is_busy:
        return max(decided[-1] + step.scheduled_at - steps[place - 1].scheduled_at, decided[-1])
    return handled[-1] + step.scheduled_at - steps[place - 1].ended_at
