"""The search for the rate at which a noisy falling curve crosses zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.study.search import Bracket, bracket_of, crossing, find_crossing, smoothed


@given(st.floats(0.01, 1000), st.floats(0.05, 20))
def test_the_crossing_is_found_from_either_side_within_the_tolerance(wanted: float, factor: float) -> None:
    bracket, margins = find_crossing(lambda rate: 1 - rate / wanted, wanted * factor, tolerance=0.02)
    assert bracket.low is not None and bracket.high is not None
    assert bracket.low <= wanted * 1.001 and bracket.high >= wanted * 0.999
    assert bracket.high <= bracket.low * 1.0201
    # 20 times off are 5 doublings; a factor of 2 is halved 6 times in its logarithm to 1.1 per cent.
    assert len(margins) <= 5 + 1 + 6


def test_the_queue_of_textbooks_is_found_through_noise() -> None:
    """A stay in M/M/1 is exponential, P(stay > t) = e^-(mu - lambda) t: its p99 is ln(100) / (mu - lambda).

    With mu = 10/s and a limit of 1 s the highest rate is 10 - ln(100) = 5.395/s.
    """
    rng = np.random.default_rng(3)

    def margin(rate: float) -> float:
        share = 1 - math.exp(-(10 - rate)) if rate < 10 else 0.0
        return max((rng.binomial(5000, share) / 5000 - 0.99) / 0.01, -1)

    bracket, margins = find_crossing(margin, 1.0, tolerance=0.02)
    assert crossing(margins) == pytest.approx(10 - math.log(100), rel=0.03)
    assert bracket.low == pytest.approx(10 - math.log(100), rel=0.05)


def test_smoothing_pools_what_rises_against_the_rule() -> None:
    # 0.2 and 0.4 are out of order: both become 0.3, the nearest falling curve.
    margins = {1.0: 0.5, 2.0: 0.2, 3.0: 0.4, 4.0: -0.5}
    assert smoothed(margins) == pytest.approx([0.5, 0.3, 0.3, -0.5])
    assert bracket_of(margins) == Bracket(3.0, 4.0)
    # Between 3 and 4 in the logarithm: 0.3 of 0.8 of the way.
    assert crossing(margins) == pytest.approx(3 * (4 / 3) ** (0.3 / 0.8))


def test_a_curve_that_never_falls_has_no_upper_end() -> None:
    bracket, margins = find_crossing(lambda rate: 1.0, 1.0, tolerance=0.02)
    assert bracket == Bracket(max(margins), None)
    assert max(margins) == pytest.approx(2**16, rel=1e-3)


def test_the_search_stops_where_lower_is_no_use() -> None:
    bracket, margins = find_crossing(lambda rate: None if rate < 0.3 else -1.0, 1.0, tolerance=0.02)
    assert bracket == Bracket(None, 0.25)
    assert sorted(margins) == [0.25, 0.5, 1.0]
