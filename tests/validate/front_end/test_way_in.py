"""The way in: the line by hand, what a record tells of it, and the constants recovered."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.sim.validate.front_end.way_in import START, WayIn, fit_way_in, queued_after_s, way_in_of

from .made import client_run, step

MS = 1e-3


def test_a_request_waits_until_those_before_it_are_served() -> None:
    # 0.2 ms a request and 0.1 ms for its 1,000 tokens, one after the other; then 1 ms on the way.
    sent_at, prompts = np.array([0.0, 0.0, 0.1 * MS, 1.0]), np.full(4, 1000)
    delays_s = queued_after_s(sent_at, prompts, np.array([0.2 * MS, 0.1e-6, 1.0 * MS]))
    assert delays_s / MS == pytest.approx([1.3, 1.6, 1.8, 1.3])


def test_a_record_tells_between_which_decisions_a_request_came() -> None:
    # Decided at 1 ms (alone, into an idle engine), 11 ms and 21 ms; the second request came between those.
    steps = [step(1, at=(begin * MS, (begin + 10) * MS)) for begin in (1, 11, 21)]
    run = client_run(steps, sent_at=[0.0, 8 * MS, 30 * MS], seen=[0, 2, 3], last=[2, 9, 9])
    found = way_in_of(run)
    assert found.is_known.tolist() == [1, 1, 0]
    assert found.after_s[:2] / MS == pytest.approx([0.95, 3.0])  # exact to 0.05 ms; 11 - 8
    assert found.until_s[:2] / MS == pytest.approx([1.05, 13.0])


def test_the_first_of_a_burst_is_not_exact_because_the_engine_may_have_held() -> None:
    steps = [step(0, (8, 0), (8, 0), at=(1.5 * MS, 9 * MS))]
    found = way_in_of(client_run(steps, sent_at=[0.0, 0.2 * MS], seen=[0, 0]))
    assert found.after_s.tolist() == [0.0, -0.2 * MS]
    assert found.until_s / MS == pytest.approx([1.5, 1.3])


def test_the_likeliest_constants_are_those_that_the_delays_were_made_with() -> None:
    true = np.array([0.3 * MS, 0.2e-6, 0.8 * MS])
    rng = np.random.default_rng(2)
    sent_at = np.sort(rng.uniform(0, 0.2, 400))  # 2 requests a millisecond: lines form
    prompts = rng.integers(1, 2000, 400)
    delay_s = queued_after_s(sent_at, prompts, true) + rng.logistic(0, 0.05 * MS, 400)
    width_s = rng.uniform(0, 1 * MS, 400)
    below_s = rng.uniform(0, 1, 400) * width_s
    run = WayIn(sent_at, prompts, delay_s - below_s, delay_s - below_s + width_s, np.ones(400))
    found = fit_way_in([run], [np.ones(400)], START)
    assert found[:3] == pytest.approx(true, rel=0.05)
    assert found[3] == pytest.approx(0.05 * MS, rel=0.2)
