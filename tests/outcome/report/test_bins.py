"""Bins over time: levels and counts by hand, and what they conserve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.outcome.report.bins import Bins, common_bins
from simllm.sim.outcome.report.run_folder import Run

SECONDS = Bins(np.array([0.0, 1.0, 2.0, 3.0]))


def test_a_level_is_the_mean_over_each_bin() -> None:
    # one from 0.5 to 1.5 and one of height 2 from 1 to 2: 0.5, 0.5 + 2, 0
    level = SECONDS.level(np.array([0.5, 1.0]), np.array([1.5, 2.0]), np.array([1.0, 2.0]))
    assert level.tolist() == pytest.approx([0.5, 2.5, 0.0])


def test_without_intervals_the_level_is_zero() -> None:
    assert SECONDS.level(np.array([]), np.array([])).tolist() == [0.0, 0.0, 0.0]


def test_counts_amounts_and_percentiles_go_by_bin() -> None:
    at = np.array([0.1, 0.9, 2.5, 9.0])
    assert SECONDS.total(at).tolist() == [2, 0, 2]
    assert SECONDS.total(at, np.array([1.0, 2.0, 3.0, 4.0])).tolist() == [3.0, 0.0, 7.0]
    middle = SECONDS.percentile(at, np.array([1.0, 2.0, np.nan, 4.0]), 50)
    assert middle.tolist() == pytest.approx([1.5, np.nan, 4.0], nan_ok=True)


def test_a_ratio_is_unknown_where_there_is_nothing_to_divide_by() -> None:
    found = SECONDS.ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0]))
    assert found.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3), st.floats(0, 10)), max_size=20))
def test_a_level_keeps_the_area_of_its_intervals(drawn: list[tuple[float, float, float]]) -> None:
    start = np.array([min(first, second) for first, second, _ in drawn])
    end = np.array([max(first, second) for first, second, _ in drawn])
    height = np.array([height for _, _, height in drawn])
    area = float(((end - start) * height).sum())
    assert SECONDS.level(start, end, height).sum() * SECONDS.width_s == pytest.approx(area, abs=1e-9)


def test_bins_are_round_and_cover_the_run(hand: Run) -> None:
    bins = common_bins([hand])
    assert bins.width_s == pytest.approx(0.02)  # 2.02 s / 120 is 0.0168 s, the next of 1, 2, 5
    assert bins.edges[0] == 0.0
    assert bins.edges[-1] >= hand.ended_at
