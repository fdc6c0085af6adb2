"""What the tests of workloads share: building a demand from plain data, and comparing two."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from simllm.sim.workload import Demand, WorkloadSpec, build_demand

Build = Callable[..., Demand]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a demand from the fields of a workload, paths being relative to `tmp_path`."""

    def built(fields: dict[str, Any], seed: int = 0) -> Demand:
        spec: Any = TypeAdapter(WorkloadSpec).validate_python(fields)
        return build_demand(spec, seed=seed, base_dir=tmp_path)

    return built


@pytest.fixture
def columns() -> Callable[[Demand], dict[str, Any]]:
    """Returns a demand as plain values that can be compared with ==."""

    def plain(demand: Demand) -> dict[str, Any]:
        values = {name: getattr(demand, name) for name in demand.__dataclass_fields__}
        arrays = {name: value.tolist() for name, value in values.items() if hasattr(value, "tolist")}
        contents = None if demand.contents is None else list(demand.contents)
        return {**values, **arrays, "contents": contents}

    return plain


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], str]:
    """Writes a text file into `tmp_path`, gzipped if its name says so, and returns its name."""

    def written(name: str, text: str) -> str:
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return written


@pytest.fixture
def put_lines(put: Callable[[str, str], str]) -> Callable[..., str]:
    """Writes JSONL into `tmp_path` and returns its name."""

    def written(name: str, *rows: object) -> str:
        return put(name, "".join(json.dumps(row) + "\n" for row in rows))

    return written
