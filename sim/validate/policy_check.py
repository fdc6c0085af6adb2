"""Does the simulated scheduler decide as the real one did? Its steps, given the recorded step times.

With the recorded durations in place of predicted ones, what is left to differ is policy, and when a
request became visible to the engine. So the run is replayed twice: with arrivals as they are modelled, and
with each request arriving just in time for the decision that first saw it on the real engine; what departs
then is policy alone. The check says how many steps agree, where they first do not, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import TraceError
from ...hwmodels.step import DecodeGroup, DecodeLine, StepCost, StepShape
from ...units import MS_PER_S
from ..run import Prepared, play
from ..scenario import RunConfig, Scenario
from ..workload.traces.vllm_bench import BenchResult
from .measured import Floats, measured_run
from .recorded_steps import RecordedStep, read_steps
from .replay import GivenSettings, prepare_replay, replay_of
from .visibility import admissions, arrivals_as_seen, first_seen


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a simulated sequence of batches follows the recorded one.

    num_followed: steps that agree before the first departure. num_agreeing: steps that agree at the same
    place in all. departure: the first step that differs, as recorded and as simulated, and why as far as
    can be told; None if there is none.
    """

    num_steps: int
    num_followed: int
    num_agreeing: int
    departure: str | None

    def describe(self) -> str:
        """Returns it in words."""
        told = f"{self.num_followed} of {self.num_steps} steps followed exactly"
        if self.departure is None:
            return told
        return f"{told}, {self.num_agreeing} agree in all; first departure: {self.departure}"


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """The check of one run. as_seen: with arrivals as the real engine saw them, None if it can't be told."""

    file: str
    as_modelled: Followed
    as_seen: Followed | None

    def describe(self) -> str:
        """Returns the check in two lines of text."""
        seen = "cannot be told from this record" if self.as_seen is None else self.as_seen.describe()
        return (
            f"{self.file}\n  arrivals as modelled: {self.as_modelled.describe()}"
            f"\n  arrivals as the engine saw them: {seen}"
        )


def check_policy(bench_path: Path, steps_path: Path, given: GivenSettings | None = None) -> PolicyCheck:
    """Replays a run with its recorded step times and compares the batches.

    Raises: TraceError, ScenarioError as `validate_run` does.
    """
    steps = read_steps(steps_path)
    if not steps:
        raise TraceError(steps_path, None, "holds no steps")
    bench = BenchResult(bench_path, None)
    replay = replay_of(bench, given or GivenSettings())
    prepared, _ = prepare_replay(bench, replay)
    sent_at = measured_run(bench).sent_at
    as_modelled = _follow(prepared, steps, sent_at)
    seen = first_seen(steps, len(prepared.demand))
    if seen is None or prepared.deployments[0].pipeline_depth != 2:
        return PolicyCheck(str(bench_path), as_modelled, None)
    arrived_at = arrivals_as_seen(steps, seen)
    demand = replace(prepared.demand, arrived_at=arrived_at, num_clients=None)
    at_the_engine, _ = prepare_replay(bench, replace(replay, scenario=_without_front_end(replay.scenario)))
    as_seen = _follow(replace(at_the_engine, demand=demand), steps, None)
    return PolicyCheck(str(bench_path), as_modelled, as_seen)


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


def _without_front_end(scenario: Scenario) -> Scenario:
    """Returns the scenario with requests that reach the engine as they are sent."""
    pools = []
    for pool in scenario.pools:
        overhead = pool.engine_overhead
        nothing = {name: 0.0 for name in type(overhead).model_fields if name.startswith("frontend")}
        pools.append(pool.model_copy(update={"engine_overhead": overhead.model_copy(update=nothing)}))
    return scenario.model_copy(update={"pools": tuple(pools)})


def _follow(prepared: Prepared, steps: Sequence[RecordedStep], sent_at: Floats | None) -> Followed:
    scenario = prepared.scenario.model_copy(update={"run": RunConfig(leaps=False, record_steps=False)})
    recorded = _RecordedTimes(steps)
    deployments = tuple(replace(deployment, step_model=recorded) for deployment in prepared.deployments)
    play(replace(prepared, scenario=scenario, deployments=deployments))
    return compare_steps(steps, recorded.shapes, sent_at)


def compare_steps(
    steps: Sequence[RecordedStep], shapes: Sequence[StepShape], sent_at: Floats | None
) -> Followed:
    """Returns how far the simulated steps follow the recorded ones; sent_at [s] helps to say why not."""
    pairs = [
        (_told(step.num_decodes, step.sum_context, step.chunks), _of(shape))
        for step, shape in zip(steps, shapes, strict=False)
    ]
    agreeing = [recorded == simulated for recorded, simulated in pairs]
    num_followed = agreeing.index(False) if False in agreeing else len(pairs)
    departure = None
    if num_followed < len(pairs):
        recorded, simulated = pairs[num_followed]
        why = _reason(steps, shapes, num_followed, sent_at)
        departure = f"step {num_followed + 1}, recorded {recorded}, simulated {simulated}; {why}"
    return Followed(len(steps), num_followed, sum(agreeing), departure)


def _reason(
    steps: Sequence[RecordedStep], shapes: Sequence[StepShape], number: int, sent_at: Floats | None
) -> str:
    """Returns why two steps differ, as far as the prompts that began until then tell."""
    recorded = admissions(step.chunks for step in steps[: number + 1])[-1]
    simulated = admissions(shape.chunks for shape in shapes[: number + 1])[-1]
    if recorded == simulated:
        return "the same prompts have begun, so it is the sharing of the budget or a finished request"
    first, seen_by = min(recorded, simulated), "real engine" if recorded > simulated else "simulation"
    told = f"request {first} has begun on the {seen_by} only"
    if number and not steps[number - 1].is_busy:
        told += "; the real engine decides its second step after an idle time when the first is launched"
    if sent_at is None or first >= len(sent_at):
        return told
    ahead_ms = (steps[number].scheduled_at - float(sent_at[first])) * MS_PER_S
    return f"arrival visibility: {told}, sent {ahead_ms:.2f} ms before this step was decided"


def _of(shape: StepShape) -> str:
    decodes = shape.decodes[0] if shape.decodes else DecodeGroup(1, 0, 0, 0)
    return _told(decodes.count, decodes.sum_context, shape.chunks)


def _told(num_decodes: int, sum_context: int, chunks: Sequence[tuple[int, int, int]]) -> str:
    prompts = ", ".join(f"{query}+{context}" for query, context, _ in sorted(chunks))
    return f"[{num_decodes} decodes of {sum_context} tokens; chunks {prompts or 'none'}]"
