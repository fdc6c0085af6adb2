"""Stages in time: steps follow each other through them, and wait where they must."""

from __future__ import annotations

import pytest

from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.power import PowerLimit
from simllm.hwmodels.step import Chunk, DecodeGroup, StepCost, StepShape
from simllm.sim.world.pipeline import Pipeline

HANDOVER_S, RETURN_S = 1.0, 0.5


class Stage:
    """A stage that computes a token in `token_s`; no launches, no power."""

    terms = ("communication",)

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s


class Stages:
    """What a pipeline asks of its model, in round numbers."""

    cuda_graph = CudaGraphSizes(())

    def __init__(self, *token_s: float, returns_tokens: bool = False) -> None:
        self.stages = [Stage(seconds) for seconds in token_s]
        self.returns_tokens = returns_tokens

    def stage_costs(self, shape: StepShape) -> list[StepCost]:
        seconds = [stage.token_s * shape.num_tokens for stage in self.stages]
        zeros = (0.0,) * 12
        return [StepCost(duration_s, (duration_s, *zeros), "matrix") for duration_s in seconds]

    def handover_s(self, num_tokens: int) -> float:
        return HANDOVER_S

    def return_s(self, num_sampled: int) -> float:
        return RETURN_S if self.returns_tokens and num_sampled else 0.0


def prompt(num_tokens: int, num_sampled: int = 1) -> StepShape:
    return StepShape((Chunk(num_tokens, 0),), num_padded_tokens=num_tokens, num_sampled=num_sampled)


def spans(pipeline: Pipeline, *shapes: StepShape) -> list[tuple[float, float]]:
    passages = [pipeline.run(step, shape, 0.0, 0.0) for step, shape in enumerate(shapes, 1)]
    return [(passage.started_at, passage.ended_at) for passage in passages]


def test_a_step_passes_the_stages_one_after_another():
    # 10 tokens at 1 s and 2 s each, and 1 s between: 10 + 1 + 20.
    assert spans(Pipeline(Stages(1.0, 2.0), None), prompt(10)) == [(0.0, 31.0)]


def test_the_next_step_enters_when_the_one_ahead_has_left():
    # Stage 2 is the slower one: the second step enters it at 31 and leaves at 51.
    assert spans(Pipeline(Stages(1.0, 2.0), None), prompt(10), prompt(10)) == [(0.0, 31.0), (10.0, 51.0)]


def test_a_slow_first_stage_leaves_the_last_one_idle():
    pipeline = Pipeline(Stages(2.0, 1.0), None)
    assert spans(pipeline, prompt(10), prompt(10)) == [(0.0, 31.0), (20.0, 51.0)]
    # Busy for 51 s on two GPUs, of which they computed 60 s.
    assert pipeline.bubble_share(51.0) == pytest.approx(1 - 60 / 102)


def test_where_tokens_go_back_steps_do_not_overlap():
    pipeline = Pipeline(Stages(1.0, 2.0, returns_tokens=True), None)
    assert spans(pipeline, prompt(10), prompt(10)) == [(0.0, 31.5), (31.5, 63.0)]


def test_a_step_that_samples_nothing_lets_the_next_one_follow_at_once():
    pipeline = Pipeline(Stages(1.0, 2.0, returns_tokens=True), None)
    assert spans(pipeline, prompt(10, num_sampled=0), prompt(10)) == [(0.0, 31.0), (10.0, 51.5)]


def test_what_passes_between_stages_is_communication():
    passage = Pipeline(Stages(1.0, 2.0), None).run(1, prompt(10), 0.0, 0.0)
    assert passage.cost.duration_s == 31.0
    assert sum(passage.cost.terms) == pytest.approx(31.0)


def test_stages_that_take_turns_do_not_meet_the_power_limit_as_one_gpu_does():
    # Prompts of 10 s of matrix work in each stage: settled, they take 12 s. In ten of them one GPU nears
    # that; of two stages each rests as long as it computes, so its clock falls half as far at most.
    limit = PowerLimit(1 / 1.2, 0.1, reaction_s=10.0, busy_headroom=0.2, idle_headroom=0.4)
    alone = Pipeline(LimitedStages(20.0), limit)
    staged = Pipeline(LimitedStages(10.0, 10.0), limit)
    added_s = []
    for pipeline, between_s in ((alone, 0.0), (staged, HANDOVER_S)):
        ends = [pipeline.run(step, prompt(1), 0.0, 0.0).ended_at for step in range(1, 11)]
        added_s.append(ends[-1] - 10 * (20.0 + between_s + RETURN_S))
    assert 0 < added_s[1] < 0.6 * added_s[0]
    assert added_s[0] < 0.2 * 200


class LimitedStages(Stages):
    """Stages whose work is bound by matrix units, priced with the clock settled."""

    def __init__(self, *prompt_s: float) -> None:
        super().__init__(*prompt_s, returns_tokens=True)
        for stage in self.stages:
            stage.terms = ("matrix", "power_limit")

    def stage_costs(self, shape: StepShape) -> list[StepCost]:
        seconds = [stage.token_s * shape.num_tokens for stage in self.stages]
        return [StepCost(1.2 * work_s, (work_s, 0.2 * work_s, *(0.0,) * 11), "matrix") for work_s in seconds]


def test_ends_of_the_last_steps_are_known():
    pipeline = Pipeline(Stages(1.0, 2.0), None)
    ends = [pipeline.run(step, prompt(1), 0.0, 0.0).ended_at for step in range(1, 40)]
    assert pipeline.ended_at(39) == ends[-1]
    assert pipeline.ended_at(1) is None


def test_a_leap_counts_the_work_of_its_steps_and_not_what_lies_between_them():
    pipeline = Pipeline(Stages(1.0, 2.0, returns_tokens=True), None)
    pipeline.decode(0.0, 45.0)
    pipeline.leapt(DecodeGroup(1, 1, 10, 10), 10, 45.0)  # ten steps of 3 s of work and 1.5 s between
    assert pipeline.bubble_share(45.0) == pytest.approx(1 - 30 / 90)
    assert pipeline.run(11, prompt(1), 0.0, 0.0).started_at == 45.0
