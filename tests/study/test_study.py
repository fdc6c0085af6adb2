"""A study from start to end: it may be stopped, killed and extended, and gives the same table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sim.small import scenario, small

import simllm
from simllm.errors import SimllmError
from simllm.sim.run import simulate
from simllm.sim.study.study import Study

from .small_study import SMALL, deadly_axis, study, write


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def table_bytes(folder: Path) -> bytes:
    return (folder / "results.parquet").read_bytes()


def test_a_row_says_what_a_run_of_its_own_says() -> None:
    frame = Study(study()).run(jobs=1).frame
    row = frame[(frame["rate"] == 20) & (frame["seed"] == 1)].iloc[0]
    summary = simulate(scenario(*SMALL, "workload.arrivals.request_rate=20", "seed=1")).summary()
    for key in ("p99_ttft_ms", "output_throughput", "completed", "busy_share"):
        assert row[key] == summary[key]
    assert row["term_share.mlp_gemm"] == summary["term_share"]["mlp_gemm"]
    assert row["output_throughput_per_gpu"] == summary["output_throughput"]
    assert list(frame["status"]) == ["ok"] * 4


def test_the_table_does_not_depend_on_who_ran_what_when(tmp_path: Path) -> None:
    for jobs in (1, 3):
        Study(study()).run(tmp_path / str(jobs), jobs=jobs)
    assert table_bytes(tmp_path / "1") == table_bytes(tmp_path / "3")
    table = pq.read_table(tmp_path / "1" / "results.parquet")
    assert table.column_names[:5] == ["rate", "seed", "point", "status", "error"]
    assert table["rate"].to_pylist() == [10, 10, 20, 20]
    assert table.schema.metadata[b"simllm_version"] == simllm.__version__.encode()


def test_nothing_is_run_twice_and_a_study_can_grow(tmp_path: Path) -> None:
    Study(study()).run(tmp_path)
    seen: list[tuple[int, int, int]] = []
    Study(study()).run(tmp_path, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(4, 0, 4)], "no point was left"
    result = Study(study(seeds=3)).run(tmp_path, on_progress=lambda *counts: seen.append(counts))
    assert seen[1:] == [(4, 0, 6), (5, 0, 6), (6, 0, 6)]
    assert len(journal(tmp_path)) == result.num_done == 6
    assert len({line["point"] for line in journal(tmp_path)}) == 6


def test_points_that_are_the_same_scenario_are_run_once(tmp_path: Path) -> None:
    axis = {"path": "pools.0.replicas", "values": [1, 1.0]}
    result = Study(study(axes=[axis], seeds=1)).run(tmp_path)
    assert len(journal(tmp_path)) == 1
    assert result.num_done == 2


def test_what_is_wrong_with_one_point_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    # 0 replicas make no scenario; 70B parameters do not fit, which only deploying tells.
    axes = [{"zip": [
        {"path": "pools.0.replicas", "values": [1, 0, 1]},
        {"path": "pools.0.model", "values": ["llama-3.1-8b", "llama-3.1-8b", "llama-3.1-70b"]},
    ]}]  # fmt: skip
    result = Study(study(axes=axes, seeds=1)).run(tmp_path)
    assert list(result.frame["status"]) == ["ok", "failed", "failed"]
    assert result.errors[0] == "$.pools[0].replicas: must be greater than or equal to 1 (got 0)"
    assert "llama-3.1-70b on h100-sxm does not fit" in result.errors[1]
    assert not any("\n" in error for error in result.errors)


def test_a_worker_that_is_killed_takes_only_its_own_point_with_it(tmp_path: Path) -> None:
    spec = study(axes=[deadly_axis(tmp_path)])
    result = Study(spec).run(tmp_path / "out", jobs=1, allow_python=True)
    assert list(result.frame["status"]) == ["ok", "ok", "failed", "failed"]
    assert set(result.errors) == {"the worker was killed by SIGKILL, perhaps for want of memory"}
    lines = len(journal(tmp_path / "out"))
    Study(spec).run(tmp_path / "out", jobs=1, allow_python=True)
    assert len(journal(tmp_path / "out")) == lines, "a failed point is not run again"
    Study(spec).run(tmp_path / "out", jobs=1, allow_python=True, retry_failed=True)
    assert len(journal(tmp_path / "out")) == lines + 2, "unless that is asked for"


def test_python_code_does_not_run_unasked(tmp_path: Path) -> None:
    result = Study(study(axes=[deadly_axis(tmp_path)], seeds=1)).run(tmp_path / "out")
    assert "--allow-python" in result.errors[0]


@contextmanager
def sweep(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs the command beside this process, and no longer than the block."""
    command = [sys.executable, "-m", "simllm.cli", "sweep", "study.yaml", "-o", "out", "-j", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def wait_for_points(folder: Path, count: int) -> None:
    path = folder / "out" / "journal.jsonl"
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, "the sweep never began")


def workers_in(folder: Path) -> list[str]:
    """Returns the workers that run in a folder, as far as the system tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_worker = b"simllm.sim.study.worker" in (process / "cmdline").read_bytes()
            if is_worker and (process / "cwd").resolve() == folder.resolve():
                found.append(process.name)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_loses_nothing_and_goes_on(how: signal.Signals, tmp_path: Path) -> None:
    write(tmp_path, scenario=small("workload.num_requests=300"), seeds=8)
    with sweep(tmp_path) as running:
        wait_for_points(tmp_path, 3)
        running.send_signal(how)
        _, err = running.communicate(timeout=60)
    wait_until(lambda: not workers_in(tmp_path), "a worker outlives its sweep")
    kept = journal(tmp_path / "out")
    assert 3 <= len(kept) < 16
    if how is signal.SIGINT:
        assert running.returncode == 130
        assert err == "interrupted; the same command goes on where out ends\n"
        assert pq.read_table(tmp_path / "out" / "results.parquet").num_rows == len(kept)
    with sweep(tmp_path) as again:
        again.communicate(timeout=120)
    assert again.returncode == 0
    assert journal(tmp_path / "out")[: len(kept)] == kept
    assert len(journal(tmp_path / "out")) == 16
    Study.load(tmp_path / "study.yaml").run(tmp_path / "whole", jobs=2)
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "whole")


def test_a_line_cut_off_by_a_crash_is_run_again(tmp_path: Path) -> None:
    Study(study()).run(tmp_path)
    before, path = table_bytes(tmp_path), tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    Study(study()).run(tmp_path)
    assert table_bytes(tmp_path) == before
    assert len(journal(tmp_path)) == 4


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"point": 1\n')
    with pytest.raises(SimllmError, match=r"journal.jsonl:1: is no line of a sweep's journal$"):
        Study(study()).run(tmp_path)


def test_two_sweeps_do_not_write_into_one_folder(tmp_path: Path) -> None:
    def also(*_: int) -> None:
        with pytest.raises(SimllmError, match="another sweep is writing here"):
            Study(study()).run(tmp_path)

    Study(study(axes=[], seeds=1)).run(tmp_path, on_progress=also)


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SimllmError, match=r"holds 'notes.txt', which no sweep wrote"):
        Study(study()).run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_study_without_a_folder_keeps_nothing_and_gives_the_same(tmp_path: Path) -> None:
    kept, passing = Study(study()).run(tmp_path / "out"), Study(study()).run()
    assert kept.frame.equals(passing.frame)
