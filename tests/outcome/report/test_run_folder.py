"""Reading runs: what is no run, and what this version cannot read, is told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simllm.errors import SimllmError
from simllm.sim.outcome.report.run_folder import read_runs, run_names


def set_version(folder: Path, version: object) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(summary | {"schema_version": version}), encoding="utf-8")


def test_a_run_is_read_whole(hand_folder: Path) -> None:
    (run,) = read_runs([hand_folder])
    assert run.name == "hand"
    assert (len(run.requests), len(run.completed)) == (4, 3)
    assert run.steps is not None
    assert len(run.steps) == 8
    assert run.slo.limits_s == {"ttft": 0.45}
    assert (run.started_at, run.ended_at) == (0.0, pytest.approx(2.02))


def test_a_run_without_steps_is_read_too(unrecorded: Path) -> None:
    (run,) = read_runs([unrecorded])
    assert run.steps is None
    assert run.kv is None


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (99, "schema_version 99, .*update simllm"),
        (0, "simulate the scenario again"),
        (None, "no schema_version"),
    ],
)
def test_another_version_is_refused_with_what_to_do(hand_folder: Path, version: object, message: str) -> None:
    set_version(hand_folder, version)
    with pytest.raises(SimllmError, match=message):
        read_runs([hand_folder])


def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimllmError, match=r"is no run: it has no summary\.json"):
        read_runs([tmp_path])
    with pytest.raises(SimllmError, match="nowhere: is no folder"):
        read_runs([tmp_path / "nowhere"])


def test_broken_files_are_named(hand_folder: Path) -> None:
    (hand_folder / "steps.parquet").write_bytes(b"no parquet")
    with pytest.raises(SimllmError, match=r"steps\.parquet: cannot be read") as caught:
        read_runs([hand_folder])
    assert "\n" not in str(caught.value)
    (hand_folder / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(SimllmError, match=r"summary\.json: cannot be read"):
        read_runs([hand_folder])


def test_names_are_as_short_as_tells_runs_apart() -> None:
    assert run_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert run_names([Path("/a/x"), Path("/b/x")]) == ["a/x", "b/x"]
    with pytest.raises(SimllmError, match="is given twice"):
        run_names([Path("/a/x"), Path("/a/b/../x")])
