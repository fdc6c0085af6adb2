"""Confidence intervals over seeds, and differences on common random numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.sim.study.intervals import intervals, lower_bound, paired_differences, t_interval
from simllm.sim.study.study import Study

from .small_study import study


def test_an_interval_is_student_s() -> None:
    # Mean 2, deviation 1, standard error 1/sqrt(3); t(0.975, 2) = 4.302653 and t(0.95, 2) = 2.919986.
    assert t_interval([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert lower_bound([1, 2, 3], 0.95) == pytest.approx(2 - 2.919986 / 3**0.5)


def test_one_value_has_no_interval_and_bounds_itself() -> None:
    mean, low, high = t_interval([5.0])
    assert mean == 5 and math.isnan(low) and math.isnan(high)
    assert lower_bound([5.0], 0.95) == 5


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    # 4,000 samples of 5: the share is binomial with a deviation of 0.0034; five of them are allowed.
    samples = np.random.default_rng(1).normal(3, 2, (4000, 5))
    held = [low <= 3 <= high for _, low, high in map(t_interval, samples.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.017)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(0.5, 0.99))
def test_a_surer_interval_is_wider_and_holds_the_mean(values: list[float], confidence: float) -> None:
    mean, low, high = t_interval(values, confidence)
    _, surer_low, surer_high = t_interval(values, 0.995)
    assert surer_low <= low <= mean <= high <= surer_high


FRAME = pd.DataFrame(
    {
        "policy": ["a", "a", "a", "b", "b", "b"],
        "rate": [1, 1, 1, 1, 1, 1],
        "seed": [0, 1, 2, 0, 1, 2],
        "ttft": [10.0, 20.0, 30.0, 11.0, 22.0, 33.0],
    }
)


def test_a_row_per_point_and_metric() -> None:
    tidy = intervals(FRAME, ["policy", "rate"], ["ttft"])
    assert list(tidy["policy"]) == ["a", "b"]
    assert tidy.loc[0, ["mean", "std", "num_seeds"]].tolist() == [20, 10, 3]
    assert tidy.loc[1, "mean"] == 22


def test_a_difference_is_taken_seed_by_seed() -> None:
    # 1, 2, 3 above the baseline: 2 +- 4.302653 / sqrt(3); unpaired, the deviation of 10 would hide it.
    (row,) = paired_differences(FRAME, ["policy", "rate"], "policy", "a", ["ttft"]).to_dict("records")
    assert (row["policy"], row["baseline"], row["rate"], row["num_seeds"]) == ("b", "a", 1, 3)
    assert (row["mean"], row["low"]) == pytest.approx((2, 2 - 4.302653 / 3**0.5))
    assert row["share"] == pytest.approx(0.1)


def test_seeds_that_only_one_side_has_are_left_out() -> None:
    (row,) = paired_differences(FRAME.iloc[:-1], ["policy", "rate"], "policy", "a", ["ttft"]).to_dict(
        "records"
    )
    assert (row["mean"], row["num_seeds"]) == (1.5, 2)


def test_an_unknown_axis_or_value_is_told_with_those_there_are() -> None:
    with pytest.raises(SimllmError, match=r"polcy: is no axis .* policy, rate; did you mean 'policy'"):
        paired_differences(FRAME, ["policy", "rate"], "polcy", "a", ["ttft"])
    with pytest.raises(SimllmError, match="policy: has no value 'c'; it has a, b"):
        paired_differences(FRAME, ["policy", "rate"], "policy", "c", ["ttft"])


def test_equal_seeds_play_equal_requests_and_narrow_the_interval() -> None:
    axis = {"path": "pools.0.scheduler.max_num_batched_tokens", "name": "budget", "values": [8192, 1024]}
    result = Study(study(axes=[axis], seeds=5)).run()
    inputs = result.frame.groupby("seed")["total_input_tokens"].nunique()
    assert (inputs == 1).all(), "a policy changes no request"
    (paired,) = result.differences("budget", 8192, ["mean_e2el_ms"]).to_dict("records")
    means = result.intervals(["mean_e2el_ms"])
    half_widths = (means["high"] - means["low"]) / 2
    unpaired = float(np.hypot(*half_widths))
    assert (paired["high"] - paired["low"]) / 2 < 0.25 * unpaired


def test_an_unknown_metric_is_told_with_the_nearest() -> None:
    result = Study(study(axes=[], seeds=1)).run()
    with pytest.raises(
        SimllmError, match="p99_tft_ms: is no column of the results; did you mean 'p99_ttft_ms'"
    ):
        result.intervals(["p99_tft_ms"])
