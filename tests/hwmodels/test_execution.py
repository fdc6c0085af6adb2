"""Steps one after the other, with overlapping launches and a GPU's clock: worked numbers and laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.execution import Execution
from simllm.hwmodels.power import PowerLimit
from simllm.hwmodels.step import StepCost

# Matrix work takes a quarter longer with the clock settled.
LIMIT = PowerLimit(
    full_clock_ratio=0.8, other_slowdown=0.1, reaction_s=0.05, busy_headroom=0.25, idle_headroom=0.5
)
SETTLED = PowerLimit(
    full_clock_ratio=0.8, other_slowdown=0.0, reaction_s=1e-9, busy_headroom=1e-9, idle_headroom=1e-9
)


class Terms:
    """A step model of which only the names of its terms are read."""

    terms = ("work", "launch", "power_limit")

    def predict(self, shape):
        raise NotImplementedError

    def decode_line(self, decodes, max_steps):
        raise NotImplementedError


class TermsOfWorkAlone(Terms):
    """A model without launches or clock, such as a test's constant cost."""

    terms = ("work",)


def step(matrix_s: float, other_s: float = 0.0, cpu_s: float = 0.0) -> StepCost:
    """A step's cost as step models give it: clock settled, waiting for all launches that busy time leaves."""
    limited_s = 0.25 * matrix_s
    waiting_s = max(0.0, cpu_s - (matrix_s + other_s + limited_s))
    terms = (matrix_s + other_s, waiting_s, limited_s)
    return StepCost(sum(terms), terms, "matrix", cpu_s=cpu_s, waiting_s=waiting_s)


def plain(duration_s: float) -> StepCost:
    return StepCost(duration_s, (duration_s,), "any")


def played(execution: Execution, *costs: StepCost, pause_s: float = 0.0) -> StepCost:
    """Runs steps one after the other, each launched when the one before has ended: the last's cost."""
    at = 0.0
    for cost in costs:
        at += pause_s
        ran = execution.run(cost, at, at)
        at += ran.duration_s
    return ran


def test_without_launches_or_a_clock_a_step_costs_what_it_costs():
    assert Execution(TermsOfWorkAlone(), None).run(plain(0.02), 1.0, 1.0) == plain(0.02)


def test_without_a_power_limit_the_clock_counts_as_settled():
    cost = step(0.04)
    assert Execution(Terms(), None).run(cost, 0.0, 0.0) == cost


def test_a_short_step_after_a_pause_runs_at_full_clock():
    # 20 ms of matrix work are within the headroom of 50 ms x ln 1.5 = 20.3 ms.
    cost = Execution(Terms(), LIMIT).run(step(0.02), 0.0, 0.0)
    assert cost.terms == (0.02, 0.0, 0.0)
    assert cost.duration_s == pytest.approx(0.02)


def test_sustained_steps_cost_what_they_do_with_the_clock_settled():
    assert played(Execution(Terms(), LIMIT), *[step(0.04)] * 20).duration_s == pytest.approx(0.05, rel=1e-6)


def test_pauses_between_steps_keep_the_clock_full():
    assert played(Execution(Terms(), LIMIT), *[step(0.02)] * 9, pause_s=5.0).terms == (0.02, 0.0, 0.0)


def test_a_step_waits_for_launches_that_take_longer_than_the_gpu():
    # 30 ms of launches for 10 ms of work: the GPU waits 20 ms.
    cost = Execution(Terms(), SETTLED).run(step(0.008, cpu_s=0.03), 0.0, 0.0)
    assert cost.duration_s == pytest.approx(0.03)
    assert cost.terms == pytest.approx((0.008, 0.02, 0.002), abs=1e-8)


def test_launches_begun_while_the_step_before_runs_are_waited_for_less():
    # Launches take from 20 to 50 ms, the GPU is free at 50 ms: nothing is left to wait for. From 30 ms on,
    # they end at 60 ms, as the GPU does; from 45 ms on, it waits 15 ms for them.
    for launched_from, waiting_s in ((0.02, 0.0), (0.03, 0.0), (0.045, 0.015)):
        execution = Execution(Terms(), SETTLED)
        execution.run(step(0.04), 0.0, 0.0)
        cost = execution.run(step(0.008, cpu_s=0.03), launched_from, 0.05)
        assert cost.terms[1] == pytest.approx(waiting_s, abs=1e-8)
        assert cost.waiting_s == pytest.approx(waiting_s, abs=1e-8)


def test_a_step_at_full_clock_waits_longer_for_the_same_launches():
    # At full clock 20 ms of work meet 22 ms of launches; with the clock settled 25 ms would hide them.
    cost = Execution(Terms(), LIMIT).run(step(0.02, cpu_s=0.022), 0.0, 0.0)
    assert cost.terms == pytest.approx((0.02, 0.002, 0.0))


def test_decodes_are_slowed_by_the_prefill_before_them_and_by_nothing_else():
    execution = Execution(Terms(), LIMIT)
    assert execution.decode(0.0, 0.2) == 0.0
    ended_at = 0.2 + execution.run(step(10.0), 0.2, 0.2).duration_s
    # From 1 back to 0: 29.9 ms of a clock as low as settled, see test_power; a tenth of it is added.
    assert execution.decode(ended_at, ended_at + 0.2) == pytest.approx(0.00299, abs=1e-5)
    assert execution.decode(ended_at + 0.2, ended_at + 0.4) == 0.0


def test_decodes_are_free_where_no_clock_falls():
    execution = Execution(Terms(), None)
    execution.run(step(10.0), 0.0, 0.0)
    assert execution.decode(12.5, 13.0) == 0.0


work = st.floats(0.0, 0.2)
steps = st.lists(st.tuples(work, work, work, work, st.booleans()), min_size=1, max_size=20)


def after(loads) -> tuple[Execution, float, list[StepCost]]:
    """Runs steps, launched up to a step ahead; returns when the GPU is free, and the costs of all."""
    execution, costs = Execution(Terms(), LIMIT), []
    launched_from = free_at = 0.0
    for matrix_s, other_s, cpu_s, pause_s, is_decode in loads:
        started_at = free_at + pause_s
        if is_decode:
            free_at = started_at + other_s + execution.decode(started_at, started_at + other_s)
        else:
            costs.append(execution.run(step(matrix_s, other_s, cpu_s), launched_from, started_at))
            free_at = started_at + costs[-1].duration_s
        launched_from = started_at
    return execution, free_at, costs


@given(steps)
def test_a_steps_terms_sum_to_its_duration_and_none_is_negative(loads):
    for cost in after(loads)[2]:
        assert sum(cost.terms) == pytest.approx(cost.duration_s, abs=1e-12)
        assert min(cost.terms) >= -1e-15


@given(steps, work, work, work)
def test_a_step_ends_after_its_launches_and_its_work_at_full_clock(loads, matrix_s, other_s, cpu_s):
    execution, free_at, _ = after(loads)
    cost = execution.run(step(matrix_s, other_s, cpu_s), free_at, free_at)
    most_s = 1.25 * matrix_s + 1.1 * other_s
    assert max(matrix_s + other_s, cpu_s) <= cost.duration_s + 1e-12
    assert cost.duration_s <= max(most_s, cpu_s) + 1e-12


@given(steps, work, work, work, work, work)
def test_a_step_launched_earlier_never_ends_later(loads, matrix_s, other_s, cpu_s, early_s, later_s):
    cost, ends = step(matrix_s, other_s, cpu_s), []
    for delay_s in (early_s, early_s + later_s):
        execution, free_at, _ = after(loads)
        started_at = max(free_at, free_at - 0.1 + delay_s)
        ends.append(started_at + execution.run(cost, free_at - 0.1 + delay_s, started_at).duration_s)
    assert ends[0] <= ends[1] + 1e-12


@given(steps, st.integers(1, 20), work)
def test_many_decodes_at_once_end_as_one_by_one(loads, count, duration_s):
    (execution, free_at, _), (again, _, _) = after(loads), after(loads)
    at = free_at
    for _ in range(count):
        at += duration_s + execution.decode(at, at + duration_s)
    total_s = count * duration_s
    assert free_at + total_s + again.decode(free_at, free_at + total_s) == pytest.approx(at, rel=1e-9)
