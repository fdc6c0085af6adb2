"""The turnaround of a closed loop's clients, by hand."""

from __future__ import annotations

import pytest

from simllm.sim.validate.front_end.turnaround import turnarounds_of

from .made import client_run


def test_the_n_th_answer_sets_off_the_n_th_request_beyond_the_first_ones() -> None:
    # Two clients; the second's first answer comes first, at 2 s, and sets off the request sent at 2.1 s.
    run = client_run([], sent_at=[0.0, 0.0, 2.1, 3.2], ended_at=[3.0, 2.0, 9.0, 8.0], num_clients=2)
    assert turnarounds_of(run) == pytest.approx([0.1, 0.2])


def test_an_open_loop_has_no_turnaround() -> None:
    assert len(turnarounds_of(client_run([], sent_at=[0.0, 1.0]))) == 0
