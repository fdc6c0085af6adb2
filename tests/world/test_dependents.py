"""Requests that wait for others: sent when all their parents are answered and the delay has passed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import make_demand, play
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.workload.demand import Demand
from simllm.sim.workload.parents import pack_parents
from simllm.sim.world.front_end import FrontEndTimes
from simllm.sim.world.recorder import Status
from simllm.sim.world.source import PARENT_FAILED


def waiting(
    rows: list[tuple[float, int, int]], parents: list[tuple[int, ...]], delays: list[float]
) -> Demand:
    demand = make_demand(rows)
    demand.parents, demand.delay_s = pack_parents(parents), np.array(delays)
    demand.check()
    return demand


def test_the_next_turn_is_sent_a_think_time_after_the_answer() -> None:
    recorder, _ = play(waiting([(1.0, 8, 5), (1.0, 8, 5)], [(), (0,)], [0.0, 2.5]))
    assert recorder.arrived_at[1] == recorder.finished_at[0] + 2.5


def test_nobody_is_sent_before_its_own_instant() -> None:
    recorder, _ = play(waiting([(0.0, 8, 5), (900.0, 8, 5)], [(), (0,)], [0.0, 2.5]))
    assert recorder.arrived_at[1] == 900.0


def test_a_join_waits_for_the_last_of_its_branches() -> None:
    rows = [(0.0, 8, 2), (0.0, 8, 3), (0.0, 8, 40), (0.0, 8, 2)]
    recorder, _ = play(waiting(rows, [(), (0,), (0,), (1, 2)], [0.0, 0.0, 0.0, 1.0]))
    assert recorder.arrived_at[1] == recorder.arrived_at[2] == recorder.finished_at[0]
    assert recorder.finished_at[1] < recorder.finished_at[2]
    assert recorder.arrived_at[3] == recorder.finished_at[2] + 1.0


def test_whoever_waits_for_a_rejected_request_is_rejected_too() -> None:
    rows = [(3.0, 9000, 5), (3.0, 8, 5), (3.0, 8, 5), (4.0, 8, 5)]
    recorder, _ = play(waiting(rows, [(), (0,), (1, 3), ()], [0.0] * 4))
    assert list(recorder.status) == [Status.REJECTED] * 3 + [Status.FINISHED]
    assert recorder.reasons[1] == recorder.reasons[2] == PARENT_FAILED
    assert list(recorder.arrived_at[:3]) == [3.0, 3.0, 3.0]


def test_the_front_end_takes_requests_in_the_order_of_sending() -> None:
    # One second of service each: in the queue at 1, 2 and 3, as without anybody who waits.
    demand = waiting([(0.0, 8, 1), (0.5, 8, 1), (1.2, 8, 1)], [(), (), ()], [0.0] * 3)
    recorder, _ = play(demand, times=FrontEndTimes(request_s=1.0))
    plain, _ = play(make_demand([(0.0, 8, 1), (0.5, 8, 1), (1.2, 8, 1)]), times=FrontEndTimes(request_s=1.0))
    assert list(recorder.scheduled_at) == pytest.approx(list(plain.scheduled_at))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_everyone_ends_and_nobody_is_sent_too_soon(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    rows = [(0.0, data.draw(st.integers(1, 30)), data.draw(st.integers(1, 20))) for _ in range(size)]
    parents = [
        tuple(sorted(data.draw(st.sets(st.integers(0, row - 1), max_size=3)))) if row else ()
        for row in range(size)
    ]
    # Steps are whole hundredths of a second: sums of these delays never fall on a step's end by chance,
    # where a leap and single steps may round to different sides.
    delays = [data.draw(st.sampled_from([0.0, math.sqrt(row + 2)])) for row in range(size)]
    recorders = [play(waiting(rows, parents, delays), leaps=leaps)[0] for leaps in (True, False)]
    for recorder in recorders:
        assert set(recorder.status) == {Status.FINISHED}
        for row, before in enumerate(parents):
            last = max((recorder.finished_at[parent] + delays[row] for parent in before), default=0.0)
            assert recorder.arrived_at[row] == last
    np.testing.assert_allclose(recorders[0].finished_at, recorders[1].finished_at, rtol=1e-9)
