"""`simllm report`: what it writes, and what it says when it cannot."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simllm.cli import app
from simllm.errors import SimllmError

pytest.importorskip("plotly")

from simllm.sim.outcome.report.document import report_charts
from simllm.sim.outcome.report.images import write_images
from simllm.sim.outcome.report.run_folder import read_runs


def report(*arguments: object) -> None:
    """Runs the command as the shell would, and raises what it raises."""
    CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


def test_a_page_and_a_trace_are_written(hand_folder: Path, tmp_path: Path) -> None:
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    report(hand_folder, "-o", page, "--perfetto", trace)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert trace.read_text(encoding="utf-8").startswith('{"displayTimeUnit"')


def test_a_folder_that_is_no_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SimllmError, match="is no run"):
        report(tmp_path, "-o", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_is_told(hand_folder: Path) -> None:
    with pytest.raises(SimllmError, match="nothing to write: give -o FILE, --images DIR or --perfetto FILE"):
        report(hand_folder)


def test_a_trace_is_of_one_run(hand_folder: Path, unrecorded: Path, tmp_path: Path) -> None:
    with pytest.raises(SimllmError, match="--perfetto writes one run, not 2"):
        report(hand_folder, unrecorded, "--perfetto", tmp_path / "trace.json")


def test_without_an_extra_its_name_is_told(
    hand_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(SimllmError, match=r"pictures need kaleido: pip install 'simllm\[images\]'"):
        report(hand_folder, "--images", tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(SimllmError, match=r"pip install 'simllm\[report\]'"):
        report(hand_folder, "-o", tmp_path / "page.html")


def test_pictures_that_cannot_be_drawn_are_one_line_and_no_files(
    hand_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("\n  no Chrome here\nrun plotly_get_chrome")

    monkeypatch.setattr("plotly.io.write_images", fail)
    monkeypatch.setattr("simllm.sim.outcome.report.images.find_spec", lambda name: name)
    with pytest.raises(SimllmError, match=r"pictures cannot be drawn: no Chrome here$"):
        report(hand_folder, "--images", tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


@pytest.mark.skipif(find_spec("kaleido") is None, reason="needs kaleido: pip install 'simllm[images]'")
@pytest.mark.parametrize(("form", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_each_chart_is_drawn_as_a_picture(hand_folder: Path, tmp_path: Path, form: str, start: bytes) -> None:
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        pytest.skip("needs a Chrome that kaleido finds")
    charts = report_charts(read_runs([hand_folder]))[:2]
    drawn = write_images(charts, tmp_path / "pictures", form)
    assert [path.name for path in drawn] == [f"{chart.key}.{form}" for chart in charts]
    assert all(path.read_bytes().startswith(start) for path in drawn)
