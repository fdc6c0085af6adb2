from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from simllm.sim.workload.arrival_spec import ArrivalSpec
from simllm.sim.workload.arrivals import Extent, arrival_times
from simllm.sim.workload.streams import stream


def draw(
    num_requests: int | None = None, duration_s: float = math.inf, seed: int = 1, **fields: object
) -> np.ndarray:
    spec = TypeAdapter(ArrivalSpec).validate_python(fields)
    return arrival_times(spec, stream(seed, "arrivals"), Extent(num_requests, duration_s))


def variation(times: np.ndarray) -> float:
    gaps = np.diff(times, prepend=0.0)
    return float(gaps.std() / gaps.mean())


def test_poisson_gaps_have_the_mean_of_the_rate_and_a_variation_of_one() -> None:
    times = draw(200_000, kind="poisson", request_rate=4.0)
    # The mean of n exponential gaps is off by 1 / sqrt(n) = 0.2 % (one sigma).
    assert times[-1] / len(times) == pytest.approx(0.25, rel=0.01)
    assert variation(times) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_vary_by_one_over_the_root_of_burstiness(burstiness: float) -> None:
    times = draw(200_000, kind="gamma", request_rate=4.0, burstiness=burstiness)
    assert times[-1] / len(times) == pytest.approx(0.25, rel=0.02)
    assert variation(times) == pytest.approx(burstiness**-0.5, rel=0.02)


def test_poisson_is_gamma_with_a_burstiness_of_one() -> None:
    poisson = draw(100, kind="poisson", request_rate=2.0)
    assert poisson.tolist() == draw(100, kind="gamma", request_rate=2.0, burstiness=1.0).tolist()


def test_rescaled_arrivals_span_exactly_the_number_over_the_rate() -> None:
    plain = draw(30, kind="poisson", request_rate=2.0)
    rescaled = draw(30, kind="poisson", request_rate=2.0, rescale_to_rate=True)
    assert rescaled[-1] == pytest.approx(15.0, rel=1e-12)
    assert rescaled == pytest.approx(plain * 15.0 / plain[-1])


def test_constant_arrivals_begin_at_zero() -> None:
    assert draw(4, kind="constant", request_rate=2.0).tolist() == [0.0, 0.5, 1.0, 1.5]


def test_constant_arrivals_end_before_the_duration() -> None:
    assert draw(None, 1.5, kind="constant", request_rate=2.0).tolist() == [0.0, 0.5, 1.0]


def test_a_duration_keeps_the_arrivals_before_it() -> None:
    many = draw(1000, kind="poisson", request_rate=5.0)
    assert draw(None, 20.0, kind="poisson", request_rate=5.0).tolist() == many[many < 20.0].tolist()


def test_a_duration_longer_than_the_first_draw_is_filled() -> None:
    # Gaps of burstiness 0.001 are almost all 0 and rarely huge: far more fit than the 206 first drawn.
    fields = {"kind": "gamma", "request_rate": 1.0, "burstiness": 1e-3}
    lengths = []
    for seed in range(20):
        many = draw(5000, seed=seed, **fields)
        times = draw(None, 1.0, seed=seed, **fields)
        assert times == pytest.approx(many[many < 1.0])
        lengths.append(len(times))
    assert max(lengths) > 206


def test_a_burst_and_a_closed_loop_begin_at_zero() -> None:
    assert draw(3, kind="burst").tolist() == [0.0, 0.0, 0.0]
    assert draw(3, kind="closed_loop", num_clients=2).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("strategy", ["linear", "exponential"])
def test_a_ramp_has_its_rates_at_both_ends(strategy: str) -> None:
    rates = {"start_request_rate": 100.0, "end_request_rate": 400.0}
    times = draw(None, 1000.0, kind="ramp", strategy=strategy, **rates)
    # In the first and last 10 s the rate is within 4 % of its ends; counts of 1,000 and 4,000 vary by 3 %.
    assert np.count_nonzero(times < 10.0) / 10 == pytest.approx(100.0, rel=0.12)
    assert np.count_nonzero(times >= 990.0) / 10 == pytest.approx(400.0, rel=0.08)


def test_a_linear_ramp_has_a_quarter_of_its_growth_by_half_time() -> None:
    times = draw(None, 1000.0, kind="ramp", start_request_rate=100.0, end_request_rate=300.0)
    # Up to t: 100 t + 200 t^2 / 2000. At 500 s 75,000, at 1000 s 200,000; a count n varies by sqrt(n).
    assert np.count_nonzero(times < 500.0) == pytest.approx(75_000, rel=0.02)
    assert len(times) == pytest.approx(200_000, rel=0.02)


def test_an_exponential_ramp_has_the_geometric_mean_rate_at_half_time() -> None:
    rates = {"start_request_rate": 100.0, "end_request_rate": 400.0}
    times = draw(None, 1000.0, kind="ramp", strategy="exponential", **rates)
    # Up to t: 100 T / ln 4 (4^(t/T) - 1): half way 72,135, in all 216,404.
    assert np.count_nonzero(times < 500.0) == pytest.approx(100e3 / math.log(4), rel=0.02)
    assert len(times) == pytest.approx(300e3 / math.log(4), rel=0.02)


def test_a_ramp_of_a_number_of_requests_lasts_as_long_as_they_take_on_average() -> None:
    times = draw(100_000, kind="ramp", start_request_rate=10.0, end_request_rate=30.0)
    assert times[-1] == pytest.approx(100_000 / 20, rel=0.02)


def test_a_ramp_down_mirrors_a_ramp_up() -> None:
    down = draw(None, 1000.0, kind="ramp", start_request_rate=300.0, end_request_rate=100.0)
    # Up to 500 s: 300 x 500 - 200 x 500^2 / 2000 = 125,000.
    assert np.count_nonzero(down < 500.0) == pytest.approx(125_000, rel=0.02)


@given(
    start=st.floats(1e-3, 1e3),
    end=st.floats(1e-3, 1e3),
    burstiness=st.floats(1e-3, 1e3),
    strategy=st.sampled_from(["linear", "exponential"]),
    num_requests=st.integers(1, 200),
)
def test_any_ramp_is_a_finite_sequence_in_order(
    start: float, end: float, burstiness: float, strategy: str, num_requests: int
) -> None:
    assume(start != end)
    rates = {"start_request_rate": start, "end_request_rate": end, "burstiness": burstiness}
    times = draw(num_requests, kind="ramp", strategy=strategy, **rates)
    assert len(times) == num_requests
    assert np.isfinite(times).all() and times[0] >= 0 and (np.diff(times) >= 0).all()
