"""The trace: a reader of Chrome's format finds every step and request where the tables have them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simllm.sim.outcome.report.perfetto import write_trace
from simllm.sim.outcome.report.run_folder import run_files

from .conftest import Simulated


def events_of(folder: Path, path: Path) -> list[dict[str, Any]]:
    count = write_trace(run_files(folder), path)
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert len(events) == count
    return events


def test_steps_are_slices_of_their_replica(hand_folder: Path, tmp_path: Path) -> None:
    events = events_of(hand_folder, tmp_path / "trace.json")
    steps = [event for event in events if event["ph"] == "X"]
    assert len(steps) == 8
    # Step 2: from 0.5 s for 0.3 s, a decode and a prefill.
    assert (steps[2]["name"], steps[2]["ts"], steps[2]["dur"]) == (
        "prefill+decode", pytest.approx(0.5e6), pytest.approx(0.3e6),
    )  # fmt: skip
    assert sum(step["dur"] for step in steps) == pytest.approx(1.82e6)
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {steps[0]["pid"]: "main 0"}


def test_a_request_holds_its_phases(hand_folder: Path, tmp_path: Path) -> None:
    events = events_of(hand_folder, tmp_path / "trace.json")
    first = [(event["ph"], event["name"], event["ts"]) for event in events if event.get("id") == 0]
    assert first == [
        ("b", "request", 0.0),
        ("b", "queue", 0.0),
        ("e", "queue", 0.0),
        ("b", "prefill", 0.0),
        ("e", "prefill", pytest.approx(0.4e6)),
        ("b", "decode", pytest.approx(0.4e6)),
        ("e", "decode", pytest.approx(0.8e6)),
        ("e", "request", pytest.approx(0.8e6)),
    ]
    assert not [event for event in events if event.get("id") == 3], "the rejected one never came to a replica"


def test_counters_tell_queues_tokens_and_blocks(hand_folder: Path, tmp_path: Path) -> None:
    events = events_of(hand_folder, tmp_path / "trace.json")
    counters = [event for event in events if event["ph"] == "C"]
    assert Counter(event["name"] for event in counters) == {
        "requests": 8, "tokens per step": 8, "hbm blocks": 8,
    }  # fmt: skip
    assert [event["args"] for event in counters if event["ts"] == pytest.approx(0.5e6)] == [
        {"running": 2, "waiting": 0}, {"prefill": 16, "decode": 1}, {"used": 4},
    ]  # fmt: skip


def test_every_request_of_a_simulated_run_ends_what_it_began(simulated: Simulated, tmp_path: Path) -> None:
    folder = simulated("two", "pools.0.replicas=2")
    events = events_of(folder, tmp_path / "trace.json")
    open_slices: Counter[tuple[int, str]] = Counter()
    for event in events:
        if event["ph"] in "be":
            open_slices[event["id"], event["name"]] += 1 if event["ph"] == "b" else -1
    assert len(open_slices) == 40 * 4
    assert set(open_slices.values()) == {0}
    replica = pd.read_parquet(folder / "requests.parquet")["replica"]
    pids = {event["id"]: event["pid"] for event in events if event["ph"] == "b"}
    assert pids == {row: number + 1 for row, number in enumerate(replica)}


def test_a_run_without_steps_still_has_its_requests(unrecorded: Path, tmp_path: Path) -> None:
    phases = Counter(event["ph"] for event in events_of(unrecorded, tmp_path / "trace.json"))
    assert phases["X"] == phases["C"] == 0
    assert phases["b"] == phases["e"] == 12
