from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.workload.arrange import in_arrival_order, scaled
from simllm.sim.workload.content import pack_contents
from simllm.sim.workload.demand import Demand


def rows(*instants: float) -> Demand:
    """A demand whose every column tells which row it was."""
    index = np.arange(len(instants))
    contents = pack_contents([((row, row + 1),) for row in index.tolist()])
    return Demand(np.array(instants), index + 1, index + 1, contents=contents, turn=index, priority=-index)


def test_rows_in_order_stay_as_they_are() -> None:
    demand = rows(0.0, 1.0, 1.0)
    assert in_arrival_order(demand) is demand


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5]), min_size=1, max_size=12))
def test_sorting_moves_whole_rows_and_keeps_ties_in_order(instants: list[float]) -> None:
    demand = in_arrival_order(rows(*instants))
    expected = sorted(range(len(instants)), key=lambda row: instants[row])
    assert demand.prompt_tokens.tolist() == [row + 1 for row in expected]
    assert demand.turn is not None and demand.turn.tolist() == expected
    assert demand.priority is not None and demand.priority.tolist() == [-row for row in expected]
    assert list(demand.contents or ()) == [((row, row + 1),) for row in expected]
    demand.check()


def test_sorting_is_noted() -> None:
    assert in_arrival_order(rows(2.0, 1.0, 3.0, 0.0)).notes == (
        "sorted by arrival: 2 rows came before the row above them",
    )


def test_a_scale_of_one_changes_nothing() -> None:
    demand = rows(0.1, 0.3)
    assert scaled(demand, 1.0) is demand
    assert scaled(demand, 2.0).arrived_at.tolist() == [0.05, 0.15]
