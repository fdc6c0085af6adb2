"""The front end: a server with one place on the way in, the whole step's outputs on the way out."""

from __future__ import annotations

import harness
import numpy as np
import pytest
from harness import make_demand, play
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.world.front_end import FrontEnd, FrontEndTimes

TIMES = FrontEndTimes(request_s=0.002, prompt_token_s=0.001, in_s=0.005, hold_s=0.004)


def test_requests_wait_for_those_sent_before_them() -> None:
    front_end = FrontEnd(TIMES)
    assert front_end.take(0.0, 3) == pytest.approx(0.005 + 0.005)  # served until 0.005
    assert front_end.take(0.001, 1) == pytest.approx(0.008 + 0.005)  # served from 0.005 until 0.008
    assert front_end.take(0.1, 1) == pytest.approx(0.103 + 0.005)


def test_an_idle_engine_is_held_while_another_request_is_on_its_way() -> None:
    # In the queue at 8 and 28 ms: 3 ms of service, 5 ms to get there.
    front_end = FrontEnd(TIMES)
    for sent_at in (0.0, 0.02):
        front_end.take(sent_at, 1)
    assert front_end.hold_s(0.0079) == 0.004
    assert front_end.hold_s(0.0081) == 0.0  # the second one has not been sent
    assert front_end.hold_s(0.021) == 0.004


def test_all_outputs_of_a_step_are_handled_before_any_client_hears() -> None:
    times = FrontEndTimes(out_s=0.4, token_s=0.02, first_token_s=0.3, last_token_s=0.2)
    assert times.way_out_s(10, 1, 2) == pytest.approx(0.4 + 0.2 + 0.3 + 0.4)


def test_a_lone_request_goes_in_and_out() -> None:
    # 10 tokens: 12 ms of service, 5 ms to the queue; a prefill and two decodes of 10 ms; out 1 + 2 + 3 ms.
    times = FrontEndTimes(
        request_s=0.002, prompt_token_s=0.001, in_s=0.005, out_s=0.001, token_s=0.002, first_token_s=0.003
    )
    recorder, _ = play(make_demand([(1.0, 10, 3)]), times=times)
    assert recorder.first_token_at[0] == pytest.approx(1.0 + 0.017 + 0.010 + 0.006)
    assert recorder.finished_at[0] == pytest.approx(1.0 + 0.017 + 0.030 + 0.003)


def test_a_client_turns_around_before_it_sends_again() -> None:
    demand = make_demand([(0.0, 5, 2), (0.0, 5, 2)], num_clients=1)
    recorder, _ = play(demand, times=FrontEndTimes(out_s=0.001, turnaround_s=0.5))
    assert recorder.arrived_at[1] == pytest.approx(recorder.finished_at[0] + 0.5)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 0.3), st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=20
    ),
    num_clients=st.sampled_from([None, 1, 3, 7]),
)
def test_a_leaping_run_meets_the_front_end_as_a_plain_one(
    rows: list[tuple[float, int, int]], num_clients: int | None
) -> None:
    times = FrontEndTimes(0.0011, 0.0001, 0.0007, 0.004, 0.0004, 0.0001, 0.0003, 0.0002, 0.0005)
    demand = make_demand(sorted(rows), num_clients)
    runs = [play(demand, times=times, leaps=leaps)[0] for leaps in (True, False)]
    np.testing.assert_allclose(*map(harness.request_rows, runs), atol=1e-9)
