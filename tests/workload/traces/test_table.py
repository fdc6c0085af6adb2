from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from simllm.errors import TraceError
from simllm.sim.request import ContentRun
from simllm.sim.workload import Demand, write_demand

Build = Callable[..., Demand]

COLUMNS: dict[str, list[Any]] = {
    "request_id": [0, 1, 2],
    "session_id": [-1, -1, -1],
    "turn": [0, 0, 0],
    "arrived_at": [0.1, 0.30000000000000004, 1 / 3],
    "prompt_tokens": [5, 6, 7],
    "requested_output_tokens": [8, 9, 10],
    "output_tokens": [8, 0, 4],
    "priority": [0, 2, 0],
    "content": ["3:5", "", "3:5;9:2"],
    "status": ["finished", "rejected", "running"],
}


@pytest.fixture(params=["parquet", "csv"])
def play(request: pytest.FixtureRequest, build: Build, tmp_path: Path) -> Callable[..., Demand]:
    """Plays a requests table in one of its forms, with some columns changed, or left out if None."""

    def played(num_requests: int | None = None, **changes: list[Any] | None) -> Demand:
        columns = {name: values for name, values in {**COLUMNS, **changes}.items() if values is not None}
        path = tmp_path / f"requests.{request.param}"
        if request.param == "csv":
            pyarrow.csv.write_csv(pa.table(columns), path)
        else:
            pyarrow.parquet.write_table(pa.table(columns), path)
        return build({"kind": "table", "path": path.name, "num_requests": num_requests})

    return played


def test_what_was_demanded_is_played_again(play: Callable[..., Demand]) -> None:
    demand = play()
    assert demand.arrived_at.tolist() == COLUMNS["arrived_at"]
    assert demand.prompt_tokens.tolist() == [5, 6, 7]
    # Not what came out: the second request was rejected, the third cut short.
    assert demand.output_tokens.tolist() == [8, 9, 10]
    assert list(demand.contents or ()) == [
        (ContentRun(3, 5),),
        None,
        (ContentRun(3, 5), ContentRun(9, 2)),
    ]


def test_columns_that_say_nothing_are_left_out(play: Callable[..., Demand]) -> None:
    demand = play(content=["", "", ""])
    assert (demand.session_id, demand.turn, demand.contents) == (None, None, None)
    assert demand.priority is not None and demand.priority.tolist() == [0, 2, 0]


def test_without_requested_tokens_those_that_came_out_are_played(play: Callable[..., Demand]) -> None:
    demand = play(requested_output_tokens=None, output_tokens=[1, 2, 3])
    assert demand.output_tokens.tolist() == [1, 2, 3]


def test_requests_that_never_arrived_are_left_out_and_noted(play: Callable[..., Demand]) -> None:
    demand = play(arrived_at=[0.1, 0.2, None])
    assert demand.prompt_tokens.tolist() == [5, 6]
    assert demand.notes == ("1 requests that never arrived are left out",)


def test_only_the_first_rows_are_played_if_so_asked(play: Callable[..., Demand]) -> None:
    demand = play(2)
    assert (demand.prompt_tokens.tolist(), demand.notes) == ([5, 6], ())


def test_an_instant_that_is_nan_never_came(play: Callable[..., Demand]) -> None:
    assert len(play(arrived_at=[0.1, 0.2, float("nan")])) == 2


@pytest.mark.parametrize(
    ("changes", "line", "row", "what"),
    [
        ({"prompt_tokens": [5, 0, 7]}, 3, 1, "prompt_tokens must be a whole number >= 1 (got 0)"),
        ({"arrived_at": [0.1, 0.2, -1.0]}, 4, 2, "arrived_at must be a number >= 0 (got -1.0)"),
        ({"content": ["3:5", "", "3:5;9:1"]}, 4, 2, "content covers 6 of 7 prompt tokens"),
        ({"content": ["3:5", "x", ""]}, 3, 1, "content must be id:tokens;id:tokens (got 'x')"),
        ({"priority": [0, 0.5, 0]}, 2, 0, "priority must be a whole number (got 0.0)"),
    ],
)
def test_the_first_bad_row_is_named(
    play: Callable[..., Demand], changes: dict[str, list[Any]], line: int, row: int, what: str
) -> None:
    with pytest.raises(TraceError) as caught:
        play(**changes)
    places = (f"requests.csv:{line}: {what}", f"requests.parquet: row {row}: {what}")
    assert str(caught.value).endswith(places)


def test_a_missing_column_is_named(play: Callable[..., Demand]) -> None:
    with pytest.raises(TraceError, match="has no column 'arrived_at'"):
        play(arrived_at=None)


def test_no_rows_are_an_error(play: Callable[..., Demand]) -> None:
    with pytest.raises(TraceError, match="holds no requests"):
        play(arrived_at=[None, None, None])


def test_a_file_of_another_kind_is_refused(build: Build, put: Callable[[str, str], str]) -> None:
    with pytest.raises(TraceError, match=r"must be \.parquet, \.csv or \.jsonl"):
        build({"kind": "table", "path": put("requests.txt", "")})
    with pytest.raises(TraceError, match=r"requests\.parquet: cannot be read"):
        build({"kind": "table", "path": put("requests.parquet", "no parquet")})


def test_a_workload_file_is_played_as_it_was_written(build: Build, tmp_path: Path) -> None:
    fields = {
        "kind": "synthetic",
        "num_requests": 20,
        "arrivals": {"kind": "closed_loop", "num_clients": 3},
        "prompt_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 50},
        "output_tokens": {"kind": "fixed", "tokens": 4},
        "shared_prefix": {"num_prefixes": 2, "prefix_tokens": {"kind": "fixed", "tokens": 16}},
    }
    demand = build(fields)
    write_demand(demand, tmp_path / "w.jsonl")
    again = build({"kind": "table", "path": "w.jsonl"})
    assert list(again.requests()) == list(demand.requests())
    assert (again.num_clients, again.origin) == (3, demand.origin)
