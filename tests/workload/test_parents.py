"""Which requests wait for which: columns, order, and what can never be sent."""

from __future__ import annotations

import numpy as np
import pytest

from simllm.errors import InvariantError
from simllm.sim.workload.demand import Demand
from simllm.sim.workload.parents import pack_parents


def test_parents_are_read_back_by_row() -> None:
    parents = pack_parents([(), (0,), (0, 1), ()])
    assert list(parents) == [(), (0,), (0, 1), ()]
    assert parents[1:3] == [(0,), (0, 1)]
    assert parents.children().tolist() == [1, 2, 2]


def test_parents_in_another_order_are_the_same_requests() -> None:
    # Rows 2, 0, 1 become 0, 1, 2; old row 2 waited for 0 and 1, which are now 1 and 2.
    moved = pack_parents([(), (0,), (0, 1)]).reordered(np.array([2, 0, 1]))
    assert list(moved) == [(1, 2), (), (1,)]


def test_a_row_may_wait_for_a_later_one() -> None:
    assert pack_parents([(1,), ()]).problem() is None


@pytest.mark.parametrize(
    ("rows", "row", "what"),
    [
        ([(), (7,)], 1, "waits for request 7, but there are 0 to 1"),
        ([(-1,), ()], 0, "waits for request -1, but there are 0 to 1"),
        ([(0,)], 0, "waits for itself: 0 <- 0"),
        ([(), (2,), (1,)], 1, "waits for itself: "),
    ],
)
def test_who_can_never_be_sent_is_named(rows: list[tuple[int, ...]], row: int, what: str) -> None:
    problem = pack_parents(rows).problem()
    assert problem is not None
    assert problem.row == row
    assert problem.what.startswith(what)


def test_a_closed_loop_has_no_parents_too() -> None:
    columns = (np.zeros(2), np.array([3, 3]), np.array([1, 1]))
    parents = pack_parents([(), (0,)])
    with pytest.raises(InvariantError, match="closed loop"):
        Demand(*columns, parents=parents, num_clients=1).check()
    Demand(*columns, parents=parents).check()
