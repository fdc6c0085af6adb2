"""Pooled gaps: percentiles to the stated error, the rest exact, runs equal to single gaps."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.world.gaps import RELATIVE_ERROR, GapSketch

GAPS = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=60)
RUNS = st.lists(
    st.tuples(st.floats(1e-3, 10.0), st.floats(-1e-5, 1e-3), st.integers(1, 40), st.integers(1, 300)),
    min_size=1,
    max_size=12,
)


def _add_run(sketch: GapSketch, first: float, slope: float, num_steps: int, count: int) -> None:
    sketch.add_runs(*(np.array([float(value)]) for value in (first, slope, num_steps, count)))


def _sketch(gaps: list[float]) -> GapSketch:
    sketch = GapSketch()
    for gap in gaps:
        sketch.add(gap)
    return sketch


def test_gaps_of_one_two_and_six_have_mean_three_and_their_population_deviation() -> None:
    # mean (1 + 2 + 6) / 3 = 3; squares 4 + 1 + 9 = 14; std sqrt(14 / 3)
    sketch = _sketch([1.0, 2.0, 6.0])
    assert sketch.count == 3
    assert sketch.mean_s() == pytest.approx(3.0, rel=1e-15)
    assert sketch.std_s() == pytest.approx(math.sqrt(14 / 3), rel=1e-15)
    assert sketch.max_s() == 6.0


def test_median_of_two_far_gaps_lies_halfway_between_them() -> None:
    # linear interpolation: (1 + 100) / 2, not one of the two
    assert _sketch([1.0, 100.0]).percentile_s(50) == pytest.approx(50.5, rel=RELATIVE_ERROR)


def test_equal_gaps_are_reported_exactly() -> None:
    sketch = GapSketch()
    for _ in range(100_000):
        sketch.add(0.0123, 7)
    assert sketch.count == 700_000
    assert sketch.percentile_s(50) == 0.0123 == sketch.percentile_s(99)
    assert sketch.std_s() < 1e-15


def test_an_empty_sketch_knows_no_statistics() -> None:
    sketch = GapSketch()
    _add_run(sketch, 1.0, 0.0, 5, 0)
    assert sketch.count == 0
    assert all(math.isnan(value) for value in (sketch.mean_s(), sketch.std_s(), sketch.percentile_s(50)))


def test_gaps_of_zero_are_counted_and_reported_as_zero() -> None:
    sketch = _sketch([0.0, 0.0, 1.0])
    assert sketch.percentile_s(50) == 0.0
    assert sketch.mean_s() == pytest.approx(1 / 3)


@given(gaps=GAPS, percent=st.floats(0, 100))
def test_percentiles_are_within_the_stated_error_of_numpys(gaps: list[float], percent: float) -> None:
    exact = float(np.percentile(gaps, percent))
    assert abs(_sketch(gaps).percentile_s(percent) - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9)


@given(gaps=GAPS)
def test_mean_and_deviation_are_exact_to_rounding(gaps: list[float]) -> None:
    sketch = _sketch(gaps)
    assert sketch.mean_s() == pytest.approx(np.mean(gaps), rel=1e-12)
    assert sketch.std_s() == pytest.approx(np.std(gaps), rel=1e-9, abs=1e-12 * max(gaps))


@given(runs=RUNS)
def test_adding_a_run_equals_adding_its_gaps_one_by_one(runs: list[tuple[float, float, int, int]]) -> None:
    together, single = GapSketch(), GapSketch()
    for first, slope, num_steps, count in runs:
        _add_run(together, first, slope, num_steps, count)
        for i in range(num_steps):
            single.add(first + slope * i, count)
    assert together.count == single.count
    assert together.mean_s() == pytest.approx(single.mean_s(), rel=1e-12)
    assert together.std_s() == pytest.approx(single.std_s(), rel=1e-9, abs=1e-12)
    for percent in (0, 1, 50, 90, 99, 100):
        # A gap on the edge of two bins may be counted in either.
        assert together.percentile_s(percent) == pytest.approx(
            single.percentile_s(percent), rel=3 * RELATIVE_ERROR
        )


def test_reading_between_additions_changes_nothing() -> None:
    often, once = GapSketch(), GapSketch()
    for gap in (0.5, 0.1, 2.0, 0.7):
        often.add(gap)
        assert often.percentile_s(50) > 0
        once.add(gap)
    assert often.mean_s() == pytest.approx(once.mean_s(), rel=1e-15)
    assert often.std_s() == pytest.approx(once.std_s(), rel=1e-14)
    assert often.percentile_s(90) == once.percentile_s(90)


def test_memory_stays_flat_however_long_the_runs() -> None:
    sketch = GapSketch()
    tracemalloc.start()
    for _ in range(200):
        _add_run(sketch, 0.010, 1e-7, 16_384, 256)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sketch.count == 200 * 16_384 * 256
    assert peak_bytes < 20e6
