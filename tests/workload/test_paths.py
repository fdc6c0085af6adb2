from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from simllm.errors import TraceError
from simllm.sim.workload.paths import DataPath, absolute_path, find_data_file


def test_a_path_is_relative_to_the_folder_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert find_data_file("a.csv", tmp_path) == tmp_path / "a.csv"
    assert find_data_file(str(tmp_path / "a.csv"), Path("/elsewhere")) == tmp_path / "a.csv"


def test_a_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").touch()
    monkeypatch.setenv("SIMLLM_TRACES", str(tmp_path))
    assert find_data_file("${SIMLLM_TRACES}/a.csv", Path("/elsewhere")) == tmp_path / "a.csv"


def test_a_missing_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TraceError, match=r"b.csv: no such file$"):
        find_data_file("b.csv", tmp_path)
    monkeypatch.setenv("SIMLLM_TRACES", str(tmp_path))
    with pytest.raises(TraceError, match=rf"b.csv: no such file \(SIMLLM_TRACES is {tmp_path}\)$"):
        find_data_file("${SIMLLM_TRACES}/b.csv", tmp_path)


def test_an_unset_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMLLM_MEASURED", raising=False)
    with pytest.raises(TraceError, match="environment variable SIMLLM_MEASURED is not set"):
        find_data_file("${SIMLLM_MEASURED}/b.json", tmp_path)


@pytest.mark.parametrize(
    "path", ["${HOME}/a", "$SIMLLM_TRACES/a", "a/${SIMLLM_TRACES}", "${SIMLLM_TRACES}x/a", ""]
)
def test_other_variables_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(DataPath).validate_python(path)


def test_an_absolute_path_means_the_same_from_any_folder(tmp_path: Path) -> None:
    assert absolute_path("a.csv", tmp_path) == str(tmp_path.resolve() / "a.csv")
    assert absolute_path("${SIMLLM_TRACES}/a.csv", tmp_path) == "${SIMLLM_TRACES}/a.csv"
