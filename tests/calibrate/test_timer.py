"""Replays become a median and a spread; what is noisy is measured again, and then flagged."""

from __future__ import annotations

import pytest

from simllm.calibrate.timer import REPEATS, Measurement, steadiest, summarise


def test_a_measurement_is_the_median_per_launch_and_its_quartiles_apart():
    result = summarise([1.0, 2.0, 3.0, 4.0, 5.0], launches=2)
    # Median 3 of two launches; quartiles 2 and 4.
    assert (result.time_s, result.num_runs) == (1.5, 5)
    assert result.spread == pytest.approx(2 / 3)
    assert result.is_noisy


def replaying(*spreads: float):
    """Returns a measurer that answers with these spreads in turn, and the replays that it was asked for."""
    asked: list[int] = []

    def measure_once(replays: int) -> Measurement:
        asked.append(replays)
        return Measurement(time_s=float(len(asked)), spread=spreads[len(asked) - 1], num_runs=replays)

    return measure_once, asked


def test_a_steady_result_is_measured_once():
    measure_once, asked = replaying(0.01)
    assert steadiest(measure_once, 10).time_s == 1.0
    assert asked == [10]


def test_a_noisy_result_is_measured_again_twice_as_long_until_it_is_steady():
    measure_once, asked = replaying(0.2, 0.01)
    result = steadiest(measure_once, 10)
    assert (result.time_s, result.is_noisy) == (2.0, False)
    assert asked == [10, 20]


def test_what_stays_noisy_keeps_its_least_spread_and_is_flagged():
    measure_once, asked = replaying(0.2, 0.05, 0.1)
    result = steadiest(measure_once, 10)
    assert (result.time_s, result.spread, result.is_noisy) == (2.0, 0.05, True)
    assert len(asked) == 1 + REPEATS
