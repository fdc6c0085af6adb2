"""Bursts into an idle engine: what their first steps tell of the hold."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from simllm.sim.validate.front_end.burst import Burst, bursts_of, fit_hold
from simllm.sim.validate.front_end.client_run import ClientRun

from .made import client_run, step

MS = 1e-3
SENT = [0.0, 0.2 * MS, 0.3 * MS]
QUEUED = np.array([1.0, 1.3, 1.9]) * MS


def burst(begun_ms: float, num_held: int, tokens: int) -> ClientRun:
    """Three requests; the first step, decided so late, holds some of them, with so many tokens each."""
    steps = [
        step(0, *[(tokens, 0)] * num_held, at=(begun_ms * MS, 9 * MS)),
        step(0, (9, 0), at=(9 * MS, 1.0)),
    ]
    admitted = [0 if place < num_held else 1 for place in range(3)]
    return client_run(steps, sent_at=SENT, seen=[0, 0, 0], admitted=admitted, last=[5, 5, 5])


def test_a_first_step_tells_after_which_request_and_before_which_it_was_decided() -> None:
    # Two held: decided 0.5 ms after the first came, so after the second (0.3) and before the third (0.9).
    (found,) = bursts_of(burst(1.5, 2, tokens=10), QUEUED)
    assert [time_s / MS for time_s in found] == pytest.approx([0.5, 0.3, 0.9])


def test_a_full_first_step_would_have_held_no_more_however_late() -> None:
    (found,) = bursts_of(burst(1.5, 2, tokens=1024), QUEUED)
    assert found.high_s == inf


def test_one_request_alone_is_no_burst() -> None:
    lone = client_run([step(0, (9, 0))], sent_at=[0.0], seen=[0], admitted=[0])
    assert bursts_of(lone, np.array([1.0])) == []


def test_the_hold_gives_the_first_steps_of_the_most_bursts() -> None:
    # Holds of 0.4 to 0.7 ms suit three of the four; the median of how late they began is among them.
    made = [(0.6, 0.4, inf), (0.7, 0.3, 0.7), (0.1, 0.0, 0.2), (2.0, 0.35, inf)]
    found = fit_hold(Burst(*(time_ms * MS for time_ms in row)) for row in made)
    assert found is not None
    assert [time_s / MS for time_s in found[:3]] == pytest.approx([0.65, 0.4, 0.7])
    assert found.num_bursts == 4


def test_a_median_that_suits_few_bursts_gives_way_to_the_nearest_hold_that_suits_most() -> None:
    made = [(0.3, 0.5, 0.9), (0.3, 0.6, 0.8), (0.3, 0.0, 0.1)]
    found = fit_hold(Burst(*(time_ms * MS for time_ms in row)) for row in made)
    assert found is not None
    assert found.value_s / MS == pytest.approx(0.6)


def test_without_bursts_there_is_no_hold() -> None:
    assert fit_hold([]) is None
