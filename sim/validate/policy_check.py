"""Does the simulated scheduler decide as the real one did? Its steps, given the recorded step times.

With the recorded durations in place of predicted ones, what is left to differ is policy, and when a
request became visible to the engine. The check says how many steps agree and where they first do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import TraceError
from ...hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepShape
from ..run import play, prepare
from ..scenario import RunConfig
from ..workload.traces.vllm_bench import BenchResult
from . import scenario_of
from .step_times import RecordedStep, read_steps


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """How far the simulated sequence of batches follows the recorded one.

    num_followed: steps that agree before the first departure. departure: that step, as recorded and as
    simulated, None if there is none. num_agreeing: steps that agree at the same place in all.
    """

    file: str
    num_steps: int
    num_followed: int
    num_agreeing: int
    departure: str | None

    def describe(self) -> str:
        """Returns the check in a line of text."""
        told = f"{self.file}: {self.num_followed} of {self.num_steps} steps followed exactly"
        if self.departure is None:
            return told
        return f"{told}, {self.num_agreeing} agree in all; first departure: {self.departure}"


def check_policy(bench_path: Path, steps_path: Path) -> PolicyCheck:
    """Replays a run with its recorded step times and compares the batches.

    Raises: TraceError, ScenarioError as `validate_run` does.
    """
    steps = read_steps(steps_path)
    if not steps:
        raise TraceError(steps_path, None, "holds no steps")
    bench = BenchResult(bench_path, None)
    scenario = scenario_of(bench).model_copy(update={"run": RunConfig(leaps=False, record_steps=False)})
    prepared = prepare(scenario, bench_path.parent)
    recorded = _RecordedTimes(steps)
    deployments = tuple(replace(deployment, step_model=recorded) for deployment in prepared.deployments)
    play(replace(prepared, deployments=deployments))
    return _compare(str(bench_path), steps, recorded.shapes)


class _RecordedTimes:
    """A step model that ignores what a step holds: the n-th step takes as long as the recorded n-th."""

    terms: tuple[str, ...] = ("recorded",)

    def __init__(self, steps: Sequence[RecordedStep]) -> None:
        self._steps = steps
        self.shapes: list[StepShape] = []

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the recorded duration of the step whose turn it is, the last one's after the end."""
        step = self._steps[min(len(self.shapes), len(self._steps) - 1)]
        self.shapes.append(shape)
        return StepCost(step.duration_s, (step.duration_s,), "recorded")

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the one next step: the run is a plain one."""
        return DecodeLine.of_step(self.predict(StepShape(decodes=(decodes,))))


def _compare(file: str, steps: Sequence[RecordedStep], shapes: Sequence[StepShape]) -> PolicyCheck:
    pairs = [
        (_told(step.num_decodes, step.sum_context, step.chunks), _of(shape))
        for step, shape in zip(steps, shapes, strict=False)
    ]
    agreeing = [recorded == simulated for recorded, simulated in pairs]
    num_followed = agreeing.index(False) if False in agreeing else len(pairs)
    departure = None
    if num_followed < len(pairs):
        recorded, simulated = pairs[num_followed]
        departure = f"recorded {recorded}, simulated {simulated}"
    return PolicyCheck(file, len(steps), num_followed, sum(agreeing), departure)


def _of(shape: StepShape) -> str:
    decodes = shape.decodes[0] if shape.decodes else DecodeGroup(1, 0, 0, 0)
    return _told(decodes.count, decodes.sum_context, shape.chunks)


def _told(num_decodes: int, sum_context: int, chunks: Sequence[tuple[int, int, int]]) -> str:
    prompts = ", ".join(f"{query}+{context}" for query, context, _ in sorted(chunks))
    return f"[{num_decodes} decodes of {sum_context} tokens; chunks {prompts or 'none'}]"
