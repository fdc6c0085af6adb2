from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simllm.errors import InvariantError
from simllm.sim.request import ContentRun, Request
from simllm.sim.workload.demand import Demand


def demand(num_rows: int = 3, **changes: Any) -> Demand:
    columns: dict[str, Any] = {
        "arrived_at": np.arange(num_rows) / 2,
        "prompt_tokens": np.arange(num_rows) + 10,
        "output_tokens": np.arange(num_rows) + 1,
    }
    return Demand(**{**columns, **changes})


def test_plain_rows_become_requests_with_defaults() -> None:
    assert list(demand().requests()) == [Request(i, i / 2, 10 + i, 1 + i) for i in range(3)]


def test_every_column_reaches_its_field() -> None:
    full = demand(
        2,
        contents=[None, (ContentRun(4, 11),)],
        session_id=np.array([7, 8]),
        turn=np.array([0, 1]),
        image_tokens=np.array([2, 3]),
        reasoning_tokens=np.array([5, 6]),
        priority=np.array([-1, 1]),
    )
    expected = Request(1, 0.5, 11, 2, (ContentRun(4, 11),), 8, 1, 3, 6, 1)
    assert list(full.requests())[1] == full.request(1) == expected


@pytest.mark.parametrize("num_rows", [1, 4096, 4097, 8192])
def test_rows_made_one_after_another_equal_rows_asked_for(num_rows: int) -> None:
    requests = list(demand(num_rows, priority=np.arange(num_rows)).requests())
    assert len(requests) == num_rows
    assert requests[-1] == demand(num_rows, priority=np.arange(num_rows)).request(num_rows - 1)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"turn": np.zeros(2)}, "differ in length: [2, 3]"),
        ({"contents": [None]}, "differ in length: [1, 3]"),
        ({"arrived_at": np.array([0.0, 2.0, 1.0])}, "arrived_at[2] comes before"),
        ({"arrived_at": np.array([-1.0, 2.0, 3.0])}, "arrived_at[0] comes before"),
        ({"prompt_tokens": np.array([5, 0, 5])}, "prompt_tokens[1] = 0 is below 1"),
        ({"output_tokens": np.array([5, 5, -2])}, "output_tokens[2] = -2 is below 1"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, Any], what: str) -> None:
    demand().check()
    with pytest.raises(InvariantError) as caught:
        demand(**changes).check()
    assert what in str(caught.value)
