"""The power limit: worked numbers of one GPU's clock, and laws that hold under any load."""

from __future__ import annotations

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.power import PowerLimit, PowerState

# Matrix work takes a quarter longer with the clock settled, other work a tenth; the clock follows in 50 ms.
LIMIT = PowerLimit(
    full_clock_ratio=0.8, other_slowdown=0.1, reaction_s=0.05, busy_headroom=0.25, idle_headroom=0.5
)
LONG = 10.0

durations = st.floats(0, 2)
loads = st.lists(st.tuples(durations, durations, durations), max_size=30)


def loaded(level_of: str = "matrix") -> PowerState:
    """A state long under matrix work, or long under other work."""
    state = PowerState(LIMIT)
    state.added_s(*((LONG, 0.0) if level_of == "matrix" else (0.0, LONG)))
    return state


def test_a_ratio_of_four_fifths_is_a_quarter_longer():
    assert LIMIT.slowdown == pytest.approx(0.25)


def test_a_rested_gpu_gives_full_clock_until_its_headroom_is_spent():
    # From -0.5 towards 1 the level passes 0 after 50 ms x ln 1.5 = 20.3 ms.
    state = PowerState(LIMIT)
    assert state.added_s(0.05 * log(1.5) * 0.999, 0) == 0
    assert state.level == pytest.approx(0, abs=2e-3)
    assert state.added_s(0.001, 0) > 0


def test_a_step_longer_than_the_headroom_is_slowed_by_what_the_clock_falls_within_it():
    # Above 0 for 100 - 20.27 = 79.73 ms, the level is 1 - e^(-t / 50 ms); its integral is
    # 79.73 - 50 (1 - e^-1.5946) = 79.73 - 39.85 = 39.88 ms, of which a quarter is added.
    above_s = 0.1 - 0.05 * log(1.5)
    expected = 0.25 * (above_s - 0.05 * (1 - exp(-above_s / 0.05)))
    assert expected == pytest.approx(0.00997, abs=1e-5)
    assert PowerState(LIMIT).added_s(0.1, 0) == pytest.approx(expected, rel=1e-12)


def test_long_matrix_work_settles_at_the_whole_slowdown():
    assert loaded().added_s(0.04, 0) == pytest.approx(0.25 * 0.04)
    assert loaded().level == pytest.approx(1)


def test_a_share_of_nine_tenths_settles_the_clock_as_matrix_work_alone_does():
    assert LIMIT.settling_level(0.9) == LIMIT.settling_level(1) == 1
    # At half of that share, halfway between 1 and the -0.25 of other work.
    assert LIMIT.settling_level(0.45) == pytest.approx(0.375)
    assert LIMIT.settling_level(0) == -0.25


def test_decodes_after_prefill_are_slow_until_the_clock_is_back():
    # From 1 towards -0.25 the level passes 0 after 50 ms x ln 5 = 80.5 ms; the integral until then is
    # 50 x 1 - 0.25 x 80.5 = 29.9 ms, of which a tenth is added, however long they go on.
    assert loaded().added_s(0, 0.2) == pytest.approx(0.1 * (0.05 - 0.25 * 0.05 * log(5)))
    assert loaded().added_s(0, LONG) == pytest.approx(0.1 * (0.05 - 0.25 * 0.05 * log(5)))


def test_after_decodes_the_clock_falls_sooner_than_after_a_pause():
    # The level passes 0 after 50 ms x ln 1.25 = 11.2 ms instead of 20.3 ms.
    state = loaded("other")
    assert state.added_s(0.0111, 0) == 0
    assert state.added_s(0.001, 0) > 0


def test_a_pause_brings_the_clock_back():
    state = loaded()
    state.rest(LONG)
    assert state.level == pytest.approx(-0.5)


def test_no_work_takes_no_time_and_changes_nothing():
    state = PowerState(LIMIT)
    assert state.added_s(0, 0) == 0
    assert state.level == -0.5


@given(loads)
def test_what_is_added_is_never_negative_nor_more_than_the_settled_clock_adds(steps):
    state = PowerState(LIMIT)
    for matrix_s, other_s, pause_s in steps:
        added_s = state.added_s(matrix_s, other_s)
        most_s = 0.25 * matrix_s + 0.1 * other_s
        assert 0 <= added_s <= most_s + 1e-15
        state.rest(pause_s)
        assert -0.5 <= state.level <= 1


@given(loads, durations, durations, st.integers(1, 50))
def test_many_equal_steps_at_once_are_as_one_by_one(before, matrix_s, other_s, count):
    one_by_one, at_once = PowerState(LIMIT), PowerState(LIMIT)
    for step_s, rest_s, pause_s in before:
        for state in (one_by_one, at_once):
            state.added_s(step_s, rest_s)
            state.rest(pause_s)
    total_s = sum(one_by_one.added_s(matrix_s / count, other_s / count) for _ in range(count))
    assert at_once.added_s(matrix_s, other_s) == pytest.approx(total_s, rel=1e-6, abs=1e-9)
    assert at_once.level == pytest.approx(one_by_one.level, abs=1e-9)


@given(durations, durations, durations)
def test_a_longer_pause_never_leaves_a_slower_clock(pause_s, more_s, matrix_s):
    short, long = loaded(), loaded()
    short.rest(pause_s)
    long.rest(pause_s + more_s)
    assert long.level <= short.level
    assert long.added_s(matrix_s, 0) <= short.added_s(matrix_s, 0) + 1e-15
