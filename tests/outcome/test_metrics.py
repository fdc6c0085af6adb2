"""Metrics against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.outcome.metrics import latency_scalars, max_concurrent, max_tokens_per_s, ratio
from simllm.sim.outcome.steps import step_runs

from .handmade import hand_made_steps

INTERVALS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=20)


@given(intervals=INTERVALS)
def test_most_concurrent_equals_a_sweep_with_departures_first(intervals: list[tuple[int, int]]) -> None:
    events = [(start, 1) for start, _ in intervals] + [(start + length, -1) for start, length in intervals]
    current, most = 0, 0
    for _, change in sorted(events):
        current += change
        most = max(most, current)
    starts = np.array([float(start) for start, _ in intervals])
    lengths = np.array([float(length) for _, length in intervals])
    assert max_concurrent(starts, starts + lengths) == most


def test_a_request_that_arrives_as_another_leaves_does_not_overlap_it() -> None:
    assert max_concurrent(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == 1


@given(values=st.lists(st.floats(0, 1e3), min_size=1, max_size=30))
def test_statistics_are_numpys(values: list[float]) -> None:
    scalars = latency_scalars("ttft", np.array([*values, np.nan]))
    milliseconds = np.array(values) * 1e3
    assert scalars["mean_ttft_ms"] == np.mean(milliseconds)
    assert scalars["std_ttft_ms"] == np.std(milliseconds)
    assert scalars["median_ttft_ms"] == scalars["p50_ttft_ms"] == np.percentile(milliseconds, 50)
    assert scalars["p99_ttft_ms"] == np.percentile(milliseconds, 99)


def test_tokens_fall_into_seconds_from_the_first_arrival_on() -> None:
    # ends 0.4 0.5 0.8 (twice) 1.5 1.60 1.72 1.86 2.02; from 0.45 on: 0.05 0.35 0.35 | 1.05 .. 1.57
    runs = step_runs(hand_made_steps(), 2)
    assert max_tokens_per_s(runs, {0: 0.0}, since=0.0) == 4
    assert max_tokens_per_s(runs, {0: 0.0}, since=0.55) == 5  # 1.5 - 0.55 = 0.95 joins the first second


def test_tokens_appear_when_the_front_end_has_passed_them_on() -> None:
    # 0.25 s later: 0.65 0.75 | 1.05 1.05 1.75 1.85 1.97 | 2.11 2.27
    assert max_tokens_per_s(step_runs(hand_made_steps(), 2), {0: 0.25}, since=0.0) == 5


def test_no_steps_no_tokens() -> None:
    assert max_tokens_per_s(step_runs([], 2), {}, since=0.0) == 0


def test_nothing_divides_by_zero() -> None:
    assert ratio(1.0, 0.0) is None
    assert ratio(1.0, None) is None
    assert ratio(1.0, 4.0) == 0.25
