from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import SimllmError, TraceError
from simllm.sim.request import ContentRun
from simllm.sim.workload.content import pack_contents
from simllm.sim.workload.demand import Demand
from simllm.sim.workload.parents import pack_parents
from simllm.sim.workload.workload_file import read_demand, write_demand

Columns = Callable[[Demand], dict[str, Any]]


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    """Any demand: instants in order, and each optional column there or not."""
    size = draw(st.integers(1, 6))

    def ints(low: int, high: int) -> st.SearchStrategy[np.ndarray]:
        return st.lists(st.integers(low, high), min_size=size, max_size=size).map(np.array)

    prompts = draw(ints(1, 10**9))
    instants = draw(st.lists(st.floats(0, 1e9), min_size=size, max_size=size))
    run = st.integers(-3, 2**62)
    contents = [draw(st.none() | st.just((ContentRun(draw(run), int(n)),))) for n in prompts]
    return Demand(
        np.array(sorted(instants)),
        prompts,
        draw(ints(1, 10**9)),
        contents=draw(st.none() | st.just(pack_contents(contents))),
        session_id=draw(st.none() | ints(-1, 9)),
        turn=draw(st.none() | ints(0, 9)),
        image_tokens=draw(st.none() | ints(0, 9)),
        reasoning_tokens=draw(st.none() | ints(0, 9)),
        priority=draw(st.none() | ints(-9, 9)),
        parents=draw(st.none() | st.just(pack_parents([()] * (size - 1) + [tuple(range(size - 1))]))),
        delay_s=draw(st.none() | st.just(np.arange(size) / 3)),
        num_clients=draw(st.none() | st.integers(1, 9)),
        origin=draw(st.text()),
        notes=tuple(draw(st.lists(st.text(), max_size=2))),
    )


@pytest.fixture(scope="module")
def plain() -> Columns:
    def values(demand: Demand) -> dict[str, Any]:
        fields = {name: getattr(demand, name) for name in demand.__dataclass_fields__}
        arrays = {name: (v.dtype.kind, v.tolist()) for name, v in fields.items() if hasattr(v, "dtype")}
        contents = None if demand.contents is None else list(demand.contents)
        parents = None if demand.parents is None else list(demand.parents)
        return {**fields, **arrays, "contents": contents, "parents": parents}

    return values


@settings(deadline=None)
@given(demand=demands())
def test_a_demand_that_is_written_is_read_back_equal(plain: Columns, demand: Demand) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.jsonl"
        write_demand(demand, path)
        assert plain(read_demand(path)) == plain(demand)


def test_absent_columns_are_not_written(tmp_path: Path) -> None:
    demand = Demand(np.array([0.5]), np.array([3]), np.array([2]), origin="by hand")
    write_demand(demand, tmp_path / "w.jsonl")
    head, row = map(json.loads, (tmp_path / "w.jsonl").read_text().splitlines())
    assert head["columns"] == ["arrived_at", "prompt_tokens", "output_tokens"]
    assert row == {"request_id": 0, "arrived_at": 0.5, "prompt_tokens": 3, "output_tokens": 2}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text("old")
    broken = Demand(np.array([0.5, np.nan]), np.array([3, 3]), np.array([2, 2]))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_demand(broken, path)
    assert [file.name for file in tmp_path.iterdir()] == ["w.jsonl"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", ["absent/w.jsonl", "file/w.jsonl"])
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    demand = Demand(np.array([0.5]), np.array([3]), np.array([2]))
    with pytest.raises(SimllmError, match=r"w\.jsonl: cannot be written: (No such file|Not a dir)"):
        write_demand(demand, tmp_path / name)


HEAD = {"format": "simllm-workload", "version": 1, "num_requests": 2, "num_clients": None, "origin": ""}
COLUMNS = ["arrived_at", "prompt_tokens", "output_tokens"]
WAITING = {**HEAD, "columns": [*COLUMNS, "parents"]}
ROW = {"arrived_at": 0.0, "prompt_tokens": 5, "output_tokens": 1}


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "w.jsonl: is no workload file of simllm"),
        ([{"timestamp": 0}], "w.jsonl:1: is no workload file of simllm"),
        ([{**HEAD, "version": 2}], "w.jsonl:1: has version 2, expected 1"),
        ([{**HEAD, "columns": ["arrived_at"]}], "w.jsonl:1: columns must hold"),
        ([{**HEAD, "columns": [*COLUMNS, "tern"]}], "w.jsonl:1: unknown column 'tern'; did you mean 'turn'?"),
        ([{**HEAD, "columns": COLUMNS}, ROW], "w.jsonl: holds 1 of 2 requests: it was cut short"),
        ([{**HEAD, "columns": COLUMNS}, ROW, {"arrived_at": 0}], "w.jsonl:3: has no 'prompt_tokens'"),
        (
            [{**HEAD, "columns": COLUMNS}, {**ROW, "output_tokens": 0}],
            "w.jsonl:2: output_tokens must be a whole",
        ),
        (
            [{**HEAD, "columns": [*COLUMNS, "content"]}, {**ROW, "content": [[1, 4]]}],
            "w.jsonl:2: content covers 4 of 5 prompt tokens",
        ),
        (
            [{**HEAD, "columns": [*COLUMNS, "content"]}, {**ROW, "content": [3]}],
            "w.jsonl:2: content must be [[id, tokens], ...] (got [3])",
        ),
        (
            [WAITING, {**ROW, "parents": []}, {**ROW, "parents": [5]}],
            "w.jsonl:3: request 1 waits for request 5, but there are 0 to 1",
        ),
        (
            [WAITING, {**ROW, "parents": [1]}, {**ROW, "parents": [0]}],
            "w.jsonl:2: request 0 waits for itself: ",
        ),
        (
            [WAITING, {**ROW, "parents": ["a"]}],
            'w.jsonl:2: parents must be [request, ...] (got ["a"])',
        ),
        (
            [{**HEAD, "columns": [*COLUMNS, "delay_s"]}, {**ROW, "delay_s": -1}],
            "w.jsonl:2: delay_s must be a number >= 0 (got -1)",
        ),
    ],
)
def test_a_bad_file_is_named_by_line(
    put_lines: Callable[..., str], tmp_path: Path, lines: list[object], what: str
) -> None:
    put_lines("w.jsonl", *lines)
    with pytest.raises(TraceError) as caught:
        read_demand(tmp_path / "w.jsonl")
    assert str(caught.value).startswith(f"{tmp_path}/{what}")


def test_only_the_first_rows_are_read_if_so_asked(tmp_path: Path) -> None:
    demand = Demand(np.array([0.5, 1.0]), np.array([3, 4]), np.array([2, 2]))
    write_demand(demand, tmp_path / "w.jsonl")
    assert read_demand(tmp_path / "w.jsonl", 1).prompt_tokens.tolist() == [3]
