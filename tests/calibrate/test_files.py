"""Files appear whole or not at all."""

from __future__ import annotations

import pytest

from simllm.calibrate.files import check_folder, check_writable, write_whole
from simllm.errors import CalibrationError


def test_a_file_takes_the_place_of_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.yaml"
    write_whole(path, "old")
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(CalibrationError, match="cannot be written: No such file"):
        write_whole(tmp_path / "nowhere" / "a.yaml", "text")
    assert list(tmp_path.iterdir()) == []


def test_places_are_checked_before_anything_is_measured(tmp_path):
    check_writable(tmp_path / "a.yaml")
    check_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="is a file; name a folder"):
        check_folder(tmp_path / "file")
