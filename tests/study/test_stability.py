"""Whether requests stay longer and longer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from simllm.sim.study.stability import load_over_time
from simllm.sim.study.trial import Trial


def queue(rate: float, capacity: float, count: int, seed: int) -> pd.DataFrame:
    """Plays a queue of one server: Poisson arrivals, exponential services (Lindley's recursion)."""
    rng = np.random.default_rng(seed)
    arrived_at = np.cumsum(rng.exponential(1 / rate, count))
    services = rng.exponential(1 / capacity, count)
    finished_at, free_at = np.empty(count), 0.0
    for number in range(count):
        free_at = max(free_at, arrived_at[number]) + services[number]
        finished_at[number] = free_at
    return pd.DataFrame({"arrived_at": arrived_at, "finished_at": finished_at})


def trial(*frames: pd.DataFrame) -> Trial:
    rows = tuple({"shares": {"x": 1.0}, **load_over_time(frame)} for frame in frames)
    return Trial(1.0, tuple(range(len(rows))), rows, {"x": 0.9}, 0.95)


def test_a_steady_stay_does_not_grow() -> None:
    # One request a second stays 3 s: three are inside at a time.
    arrived_at = np.arange(1000.0)
    found = load_over_time(pd.DataFrame({"arrived_at": arrived_at, "finished_at": arrived_at + 3}))
    assert found["growth"] == pytest.approx(0, abs=0.02)
    assert found["mean_in_system"] == pytest.approx(3, abs=0.01)


def test_an_overloaded_queue_s_stay_grows_with_time() -> None:
    # Twice the capacity: a stay of t at time t, so 7/8 T against 3/8 T, or 4/3 more.
    arrived_at = np.arange(1000.0)
    found = load_over_time(pd.DataFrame({"arrived_at": arrived_at, "finished_at": 2 * arrived_at + 2}))
    assert found["growth"] == pytest.approx(4 / 3, rel=0.02)


def test_a_trend_of_the_rate_alone_is_no_instability() -> None:
    arrived_at = 1000 * np.sqrt(np.arange(2000) / 2000)  # the rate rises from 0 all the way
    found = load_over_time(pd.DataFrame({"arrived_at": arrived_at, "finished_at": arrived_at + 3}))
    assert found["growth"] == pytest.approx(0, abs=0.03)


def test_queues_below_capacity_are_called_stable_and_those_above_are_not() -> None:
    assert not trial(*(queue(0.8, 1, 5000, seed) for seed in range(5))).is_unstable
    assert trial(*(queue(1.2, 1, 5000, seed) for seed in range(5))).is_unstable
    assert trial(queue(1.5, 1, 5000, 0)).is_unstable, "one run will do where it is plain"


def test_requests_that_never_finish_and_short_runs_tell_nothing() -> None:
    few = pd.DataFrame({"arrived_at": [0.0, 1.0, 2.0], "finished_at": [1.0, 2.0, np.nan]})
    assert load_over_time(few) == {"mean_in_system": 1.0, "growth": None}
    none = pd.DataFrame({"arrived_at": [0.0], "finished_at": [np.nan]})
    assert load_over_time(none) == {"mean_in_system": None, "growth": None}
