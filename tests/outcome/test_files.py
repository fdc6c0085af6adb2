"""The folder of a run: whole or not at all, and the same bytes every time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from simllm.errors import SimllmError
from simllm.sim.outcome import results
from simllm.sim.outcome.files import RUN_FILES, check_output_folder, whole_folder
from simllm.sim.outcome.results import Result
from simllm.sim.workload.demand import Demand
from simllm.sim.world.recorder import Recorder

from .handmade import make_meta, make_result, make_totals


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_saved_run_has_all_files_and_nothing_beside_them(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "runs" / "first")
    assert {path.name for path in (tmp_path / "runs" / "first").iterdir()} == set(RUN_FILES)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


def test_files_read_back_as_the_tables(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    for name in ("requests", "steps", "kv"):
        frame = pyarrow.parquet.read_table(tmp_path / "run" / f"{name}.parquet").to_pandas()
        assert frame.equals(getattr(result, name))
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == result.summary()
    assert (tmp_path / "run" / "scenario.lock.yaml").read_text() == "seed: 0\n"


def test_csv_holds_every_digit_of_the_numbers(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    frame = pyarrow.csv.read_csv(tmp_path / "run" / "requests.csv").to_pandas()
    for column in ("arrived_at", "finished_at", "ttft_ms", "e2el_ms"):
        assert frame[column].equals(result.requests[column])


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_result().save(tmp_path / name)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_without_steps_their_tables_are_left_out(build: Callable[..., Result], tmp_path: Path) -> None:
    build(record_steps=False).save(tmp_path / "run")
    assert set(RUN_FILES) - set(_contents(tmp_path / "run")) == {"steps.parquet", "kv.parquet"}


def test_a_run_without_requests_can_be_saved(tmp_path: Path) -> None:
    recorder = Recorder(0, record_steps=True)
    recorder.replicas.append(make_totals())
    nothing = np.zeros(0, dtype=np.int64)
    result = Result(recorder, Demand(np.zeros(0), nothing, nothing), make_meta())
    result.save(tmp_path / "run")
    assert set(_contents(tmp_path / "run")) == set(RUN_FILES)
    assert (len(result.requests), len(result.steps)) == (0, 0)


def test_an_earlier_run_is_replaced_down_to_its_last_file(
    build: Callable[..., Result], tmp_path: Path
) -> None:
    build().save(tmp_path / "run")
    build(record_steps=False).save(tmp_path / "run")
    assert "steps.parquet" not in _contents(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_empty_folder_is_welcome(result: Result, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    result.save(tmp_path / "run")
    assert set(_contents(tmp_path / "run")) == set(RUN_FILES)


def test_a_folder_with_other_files_is_refused_and_left_alone(result: Result, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SimllmError, match=r"holds 'thesis\.tex', which no simllm run wrote"):
        result.save(tmp_path)
    assert _contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(SimllmError, match="is a file"):
        check_output_folder(tmp_path / "run")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("nan"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("had_earlier_run", [False, True])
def test_a_failure_leaves_nothing_behind_and_an_earlier_run_untouched(
    error: BaseException, had_earlier_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if had_earlier_run:
        make_result().save(tmp_path / "run")
    before = {folder.name: _contents(folder) for folder in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(results, "write_summary", fail)
    with pytest.raises(SimllmError if isinstance(error, OSError) else type(error)):
        make_result().save(tmp_path / "run")
    assert {folder.name: _contents(folder) for folder in tmp_path.iterdir()} == before


def test_an_earlier_run_comes_back_if_the_new_one_cannot_take_its_place(
    result: Result, tmp_path: Path
) -> None:
    result.save(tmp_path / "run")
    with pytest.raises(SimllmError, match="cannot be written"), whole_folder(tmp_path / "run") as partial:
        partial.rmdir()  # so that moving it fails
    assert set(_contents(tmp_path / "run")) == set(RUN_FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_made_is_one_clear_line(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SimllmError, match="cannot be written: Not a directory"):
        result.save(tmp_path / "file" / "run")


def test_saving_a_run_does_not_load_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from outcome.handmade import make_result\n"
        "from simllm.sim.outcome.console import benchmark_block\n"
        "result = make_result(); result.save(sys.argv[1]); benchmark_block(result.summary())\n"
        "sys.exit('pandas' in sys.modules)"
    )
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run"), str(tests)], check=True)
