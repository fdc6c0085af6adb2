"""simllm's own workload file: JSONL that keeps a demand exactly.

The first line says what follows, ``{"format": "simllm-workload", "version": 1, "num_requests": ...,
"num_clients": ..., "columns": [...], ...}``; every other line is a request. The file appears whole or not
at all, and its reader notices when it was cut short.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SimllmError, TraceError, nearest_choice
from ..request import ContentRun
from .content import pack_contents
from .demand import Demand, IntColumn
from .parents import pack_parents
from .traces.lines import Row, check_count, check_instant, count, field, json_rows, shown

FORMAT, VERSION = "simllm-workload", 1
_CONTENT = "content"
_PARENTS, _DELAY = "parents", "delay_s"
# Columns that every file has, and those that it has if the demand has them.
_ALWAYS = ("arrived_at", "prompt_tokens", "output_tokens")
_OPTIONAL = (
    "session_id",
    "turn",
    "image_tokens",
    "reasoning_tokens",
    "priority",
    "num_samples",
    "beam_width",
    "tenant",
)
_SMALLEST = {
    "prompt_tokens": 1,
    "output_tokens": 1,
    "session_id": -1,
    "turn": 0,
    "image_tokens": 0,
    "reasoning_tokens": 0,
    "priority": -(2**63),
    "num_samples": 1,
    "beam_width": 0,
    "tenant": 0,
}


def write_demand(demand: Demand, path: Path) -> None:
    """Writes the demand as JSONL, whole or not at all.

    Raises: SimllmError when the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_lines(demand))
        beside.replace(path)
    except OSError as error:
        raise SimllmError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if beside.exists():
            beside.unlink()


def read_demand(path: Path, num_requests: int | None = None) -> Demand:
    """Returns what `write_demand` wrote, or its first `num_requests` rows.

    Raises: TraceError when the file is cut short or a line is malformed.
    """
    rows = json_rows(path)
    line, head = next(rows, (None, {}))
    columns = _check_head(head, path, line)
    total = count(head, "num_requests", path, line)
    wanted = total if num_requests is None else min(num_requests, total)
    values: dict[str, list[Any]] = {name: [] for name in columns}
    lines: list[int] = []
    for row_line, row in islice(rows, wanted):
        lines.append(row_line)
        for name in columns:
            values[name].append(_value(name, row, path, row_line))
    num_rows = len(values["arrived_at"])
    if num_rows < wanted:
        raise TraceError(path, None, f"holds {num_rows} of {total} requests: it was cut short")
    demand = _demand(values, head, path, line)
    problem = None if demand.parents is None else demand.parents.problem()
    if problem is not None:
        raise TraceError(path, lines[problem.row], f"request {problem.row} {problem.what}")
    return demand


def _lines(demand: Demand) -> Iterator[str]:
    optional = [name for name in _OPTIONAL if getattr(demand, name) is not None]
    columns = [*_ALWAYS, *([] if demand.contents is None else [_CONTENT]), *optional]
    waits = [name for name in (_PARENTS, _DELAY) if getattr(demand, name) is not None]
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    head = {
        "format": FORMAT,
        "version": VERSION,
        "num_requests": len(demand),
        "num_clients": demand.num_clients,
        "origin": demand.origin,
        "notes": demand.notes,
        "columns": [*columns, *waits],
    }
    yield encode(head) + "\n"
    for request in demand.requests():
        row: Row = {"request_id": request.index}
        row.update((name, getattr(request, name)) for name in columns)
        if demand.parents is not None:
            row[_PARENTS] = demand.parents[request.index]
        if demand.delay_s is not None:
            row[_DELAY] = float(demand.delay_s[request.index])
        yield encode(row) + "\n"


def _check_head(head: Row, path: Path, line: int | None) -> list[str]:
    """Returns the names of the columns."""
    if head.get("format") != FORMAT:
        raise TraceError(path, line, f"is no workload file of simllm: its first line lacks format {FORMAT!r}")
    if head.get("version") != VERSION:
        raise TraceError(path, line, f"has version {shown(head.get('version'))}, expected {VERSION}")
    columns = field(head, "columns", path, line)
    known = (*_ALWAYS, _CONTENT, *_OPTIONAL, _PARENTS, _DELAY)
    if not isinstance(columns, list) or not set(_ALWAYS) <= set(columns):
        raise TraceError(path, line, f"columns must hold {', '.join(_ALWAYS)} (got {shown(columns)})")
    for name in columns:
        if name not in known:
            hint = nearest_choice(name, known)
            raise TraceError(path, line, f"unknown column {name!r}; did you mean {hint!r}?")
    return columns


def _value(name: str, row: Row, path: Path, line: int) -> Any:
    """Returns the value of a column in a row; TraceError when it is missing or malformed."""
    value = field(row, name, path, line)
    if name in ("arrived_at", _DELAY):
        return check_instant(value, name, path, line)
    if name == _CONTENT:
        return _runs(value, row["prompt_tokens"], path, line)
    if name == _PARENTS:
        return _row_numbers(value, path, line)
    return check_count(value, name, path, line, at_least=_SMALLEST[name])


def _runs(value: object, prompt_tokens: int, path: Path, line: int) -> list[ContentRun] | None:
    if value is None:
        return None
    try:
        runs = [ContentRun(int(content_id), int(size)) for content_id, size in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise TraceError(path, line, f"content must be [[id, tokens], ...] (got {shown(value)})") from None
    covered = sum(run.num_tokens for run in runs)
    if covered != prompt_tokens:
        raise TraceError(path, line, f"content covers {covered} of {prompt_tokens} prompt tokens")
    return runs


def _row_numbers(value: object, path: Path, line: int) -> list[int]:
    if not isinstance(value, list) or not all(type(row) is int for row in value):
        raise TraceError(path, line, f"parents must be [request, ...] (got {shown(value)})")
    return value


def _demand(values: dict[str, list[Any]], head: Row, path: Path, line: int | None) -> Demand:
    def ints(name: str) -> IntColumn | None:
        return np.array(values[name], dtype=np.int64) if name in values else None

    num_clients = head.get("num_clients")
    return Demand(
        np.array(values["arrived_at"], dtype=np.float64),
        np.array(values["prompt_tokens"], dtype=np.int64),
        np.array(values["output_tokens"], dtype=np.int64),
        contents=pack_contents(values[_CONTENT]) if _CONTENT in values else None,
        session_id=ints("session_id"),
        turn=ints("turn"),
        image_tokens=ints("image_tokens"),
        reasoning_tokens=ints("reasoning_tokens"),
        priority=ints("priority"),
        num_samples=ints("num_samples"),
        beam_width=ints("beam_width"),
        tenant=ints("tenant"),
        parents=pack_parents(values[_PARENTS]) if _PARENTS in values else None,
        delay_s=np.array(values[_DELAY], dtype=np.float64) if _DELAY in values else None,
        num_clients=None if num_clients is None else check_count(num_clients, "num_clients", path, line),
        origin=str(head.get("origin", "")),
        notes=tuple(map(str, head.get("notes", ()))),
    )
