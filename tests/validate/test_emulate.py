"""Recorded steps on other hardware: instants worked out in the head."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.power import PowerLimit
from simllm.hwmodels.step import StepCost, StepShape
from simllm.sim.validate.emulate import emulate
from simllm.sim.validate.recorded_steps import RecordedStep

from .launched import LaunchedModel, recorded, self_consistent

DECODES, PROMPT = (4, 0), (0, 500)
# Two steps in flight: decided at once after the output of the step before the last. Each lasts 10 ms.
TWO_IN_FLIGHT = [(0, 10), (1, 20), (10, 30), (20, 40), (30, 50)]


def handled_ms(
    steps: Sequence[RecordedStep],
    model: LaunchedModel,
    *,
    depth: int = 2,
    launches_in_engine: bool = True,
    schedule_s: float = 0.0,
) -> list[float]:
    ends = emulate(
        steps, model, CudaGraphSizes(()),
        power=None, depth=depth, launches_in_engine=launches_in_engine, schedule_s=schedule_s,
    )  # fmt: skip
    return [round(1e3 * end, 9) for end in ends]


def test_decodes_with_two_steps_in_flight_follow_each_other() -> None:
    # 8 ms each instead of 10: the third is decided with the first's output at 8 ms, and waits for the second.
    steps = recorded((*times, DECODES) for times in TWO_IN_FLIGHT)
    assert handled_ms(steps, LaunchedModel(decode_s=0.008)) == [8, 16, 24, 32, 40]
    assert handled_ms(steps, LaunchedModel(decode_s=0.012)) == [12, 24, 36, 48, 60]


def test_a_synchronous_engine_decides_with_each_output() -> None:
    steps = recorded([(0, 10, DECODES), (10.2, 20, DECODES), (20.1, 30, DECODES)])
    assert handled_ms(steps, LaunchedModel(decode_s=0.008), depth=1) == [8, 16, 24]


def test_a_pause_of_the_record_is_a_pause_of_the_same_length() -> None:
    # Nothing to do from 20 to 60 ms: 40 ms after the second output, now at 16 ms, the third is decided.
    steps = recorded([(0, 10, DECODES), (1, 20, DECODES), (60, 70, DECODES)])
    assert handled_ms(steps, LaunchedModel(decode_s=0.008)) == [8, 16, 64]


def test_a_prompt_that_finds_the_engine_idle_waits_for_its_own_scheduling() -> None:
    # 1 ms at 0 and at 46 ms (30 after the output at 16); the second is scheduled while the first runs.
    steps = recorded([(0, 10, PROMPT), (1, 20, PROMPT), (50, 60, PROMPT)])
    model = LaunchedModel(prompt_s=0.008)
    assert handled_ms(steps, model, schedule_s=0.001) == [9, 17, 56]


def test_a_step_that_no_output_triggered_is_decided_as_long_after_the_one_before() -> None:
    # A request arrives at 15 ms, 14 ms after the second decision and 5 ms after the first output; now that
    # the GPU is free at 16 ms, too, its step runs from 16 to 24.
    steps = recorded([(0, 10, DECODES), (1, 20, DECODES), (15, 30, DECODES)])
    assert handled_ms(steps, LaunchedModel(decode_s=0.008)) == [8, 16, 24]
    assert handled_ms(steps, LaunchedModel(decode_s=0.004)) == [4, 8, 19]


def test_launches_that_overlap_the_step_before_cost_nothing() -> None:
    # The second step is launched from 1 to 9 ms, while the first runs to 10.
    steps = recorded([(0, 10, DECODES), (1, 20, PROMPT)])
    assert handled_ms(steps, LaunchedModel(decode_s=0.010, cpu_s=0.008)) == [10, 20]


def test_launches_that_end_after_the_gpu_are_waited_for() -> None:
    # Launched from 1 to 26 ms, the second step cannot end before, though 20 ms would do.
    steps = recorded([(0, 10, DECODES), (1, 20, PROMPT)])
    model = LaunchedModel(decode_s=0.010, prompt_s=0.010, cpu_s=0.025)
    assert handled_ms(steps, model, launches_in_engine=False) == [10, 26]


def test_an_output_waits_for_the_thread_that_launches_the_next_step() -> None:
    # The thread launches from 1 to 16 ms and hands out the output of 10 ms only then; the GPU ends at 20.
    steps = recorded([(0, 10, DECODES), (1, 20, PROMPT)])
    model = LaunchedModel(decode_s=0.010, cpu_s=0.015)
    assert handled_ms(steps, model) == [16, 20]
    assert handled_ms(steps, model, launches_in_engine=False) == [10, 20]


def test_a_chain_of_long_launches_takes_their_time() -> None:
    # 30 ms of launches for 10 ms of work. The thread launches 0-30, 30-60, 60-90: each step ends with its
    # launches, and its output waits for those of the next; the last waits for none.
    steps = recorded((*times, PROMPT) for times in TWO_IN_FLIGHT)
    model = LaunchedModel(prompt_s=0.010, cpu_s=0.030)
    assert handled_ms(steps, model) == [60, 90, 120, 150, 150]


class MatrixModel(LaunchedModel):
    """Prompts of 20 ms at full clock, 25 ms with the clock settled."""

    def predict(self, shape: StepShape) -> StepCost:
        limited_s = 0.005 if shape.chunks else 0.0
        work_s = 0.020 if shape.chunks else self.decode_s
        return StepCost(work_s + limited_s, (work_s, 0.0, limited_s), "matrix")


def test_the_first_prompt_after_a_pause_runs_at_full_clock_and_the_hundredth_does_not() -> None:
    limit = PowerLimit(
        full_clock_ratio=0.8, other_slowdown=0.0, reaction_s=0.05, busy_headroom=0.25, idle_headroom=0.5
    )
    model = MatrixModel(terms=("work", "launch", "power_limit"))
    steps = recorded((25 * place, 25 * place + 25, PROMPT) for place in range(100))
    ends = emulate(
        steps, model, CudaGraphSizes(()), power=limit, depth=1, launches_in_engine=True, schedule_s=0.0
    )
    # 20 ms are within the headroom of 50 ms x ln 1.5 = 20.3 ms.
    assert ends[0] == pytest.approx(0.020)
    assert ends[-1] - ends[-2] == pytest.approx(0.025, rel=1e-6)


def test_a_record_that_the_emulation_made_is_followed_to_rounding() -> None:
    model = LaunchedModel(decode_s=0.008, prompt_s=0.009, cpu_s=0.011)
    held = [DECODES, DECODES, PROMPT, DECODES, PROMPT, PROMPT, PROMPT, DECODES] * 5

    def emulated(steps: Sequence[RecordedStep]) -> list[float]:
        return emulate(
            steps, model, CudaGraphSizes(()), power=None, depth=2, launches_in_engine=True, schedule_s=0.0
        )

    steps = self_consistent(held, emulated)
    assert emulated(steps) == pytest.approx([step.ended_at for step in steps], rel=1e-12)
