"""A run as a trace for ui.perfetto.dev or chrome://tracing: what happened, on a time axis to walk along.

A process per replica, with its steps as slices, its requests as slices from arrival to last token (queue,
prefill and decode in them), and counters of requests, tokens per step and KV blocks; a process for tiers
that replicas share. Written a batch of rows at a time, so that memory does not grow with the run.
Source: "Trace Event Format" of Chrome (phases X, b, e, C and M; timestamps in microseconds).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

from ....units import MS_PER_S
from ..files import whole_file
from .run_folder import RunFiles

Event = dict[str, Any]
_US_PER_S = 1e6
_US_PER_MS = _US_PER_S / MS_PER_S
_ROWS_PER_BATCH = 1 << 14
_SHARED_TIERS = "tiers shared by replicas"
_STEP_COLUMNS = (
    "replica", "step", "started_at", "duration_ms", "num_prefill_tokens", "num_decodes", "num_running",
    "num_waiting", "num_preempted", "kv_blocks_used", "bound",
)  # fmt: skip
_REQUEST_COLUMNS = (
    "request_id", "replica", "status", "arrived_at", "scheduled_at", "first_token_at", "finished_at",
    "prompt_tokens", "cached_tokens", "output_tokens", "num_preemptions",
)  # fmt: skip
_PHASES = (
    ("queue", "arrived_at", "scheduled_at"),
    ("prefill", "scheduled_at", "first_token_at"),
    ("decode", "first_token_at", "finished_at"),
)


def write_trace(files: RunFiles, path: Path) -> int:
    """Writes the trace of a run, whole or not at all; returns the number of its events.

    Raises: SimllmError if it cannot be written.
    """
    num_events = 0
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[')
        for num_events, event in enumerate(trace_events(files), 1):
            file.write(",\n" if num_events > 1 else "\n")
            file.write(json.dumps(event, separators=(",", ":"), allow_nan=False))
        file.write("\n]}\n")
    return num_events


def trace_events(files: RunFiles) -> Iterator[Event]:
    """Yields the events of a run in no order of time, which readers of traces do not ask for."""
    yield from _names(files.summary)
    for row in _rows(files.requests, _REQUEST_COLUMNS):
        yield from _request(row)
    if files.steps is not None:
        for row in _rows(files.steps, _STEP_COLUMNS):
            yield from _step(row)
    if files.kv is not None:
        for row in _rows(files.kv, ("sampled_at", "replica", "tier", "used_blocks")):
            if row["tier"] != "hbm":  # of which each step tells
                yield _counter(
                    row["sampled_at"], row["replica"], f"{row['tier']} blocks", used=row["used_blocks"]
                )


def _rows(path: Path, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    with pyarrow.parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(_ROWS_PER_BATCH, columns=list(columns)):
            yield from batch.to_pylist()


def _names(summary: dict[str, Any]) -> Iterator[Event]:
    names = {one["replica"]: f"{one['pool']} {one['replica']}" for one in summary["replicas"]}
    for replica, name in names.items():
        yield _name("process_name", replica, name)
        yield {"ph": "M", "name": "process_sort_index", "pid": _pid(replica), "args": {"sort_index": replica}}
        yield _name("thread_name", replica, "steps")
    if any(len(tier["replicas"]) > 1 for tier in summary["kv_tiers"]):
        yield _name("process_name", None, _SHARED_TIERS)


def _name(kind: str, replica: int | None, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": _pid(replica), "tid": 0, "args": {"name": name}}


def _request(row: dict[str, Any]) -> Iterator[Event]:
    """Yields one request: an outer slice, and in it the phases that it went through to their end."""
    if row["replica"] is None or row["arrived_at"] is None:
        return
    passed = [phase for phase in _PHASES if row[phase[2]] is not None and row[phase[1]] is not None]
    if not passed:
        return
    told = ("request_id", "status", "prompt_tokens", "cached_tokens", "output_tokens", "num_preemptions")
    yield {**_edge("b", row, "request", row["arrived_at"]), "args": {name: row[name] for name in told}}
    for name, start, end in passed:
        yield _edge("b", row, name, row[start])
        yield _edge("e", row, name, row[end])
    yield _edge("e", row, "request", row[passed[-1][2]])


def _edge(phase: str, row: dict[str, Any], name: str, at: float) -> Event:
    return {
        "ph": phase, "cat": "request", "name": name, "id": row["request_id"], "pid": _pid(row["replica"]),
        "tid": 0, "ts": at * _US_PER_S,
    }  # fmt: skip


def _step(row: dict[str, Any]) -> Iterator[Event]:
    at, replica = row["started_at"], row["replica"]
    kinds = {"prefill": row["num_prefill_tokens"], "decode": row["num_decodes"]}
    name = "+".join(kind for kind, num in kinds.items() if num) or "step"
    told = ("step", "num_prefill_tokens", "num_decodes", "num_preempted", "bound")
    yield {
        "ph": "X", "cat": "step", "name": name, "pid": _pid(replica), "tid": 0, "ts": at * _US_PER_S,
        "dur": row["duration_ms"] * _US_PER_MS, "args": {key: row[key] for key in told},
    }  # fmt: skip
    yield _counter(at, replica, "requests", running=row["num_running"], waiting=row["num_waiting"])
    yield _counter(at, replica, "tokens per step", **kinds)
    yield _counter(at, replica, "hbm blocks", used=row["kv_blocks_used"])


def _counter(at: float, replica: int | None, name: str, **values: int) -> Event:
    return {"ph": "C", "name": name, "pid": _pid(replica), "ts": at * _US_PER_S, "args": values}


def _pid(replica: int | None) -> int:
    """Returns the number of a replica's process: 0 is that of what replicas share."""
    return 0 if replica is None else replica + 1
