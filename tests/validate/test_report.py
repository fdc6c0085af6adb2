"""The overlay plots: one page that stands alone, written whole or not at all."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from simllm.errors import SimllmError
from simllm.sim.validate import Validation, validate_run
from simllm.sim.validate.report import FILE_NAME, report_html, write_report

from .handmade import write_bench, write_steps

pytest.importorskip("plotly")


class Page(HTMLParser):
    """Headings, and everything that a page would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.loads: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._tag == "h2" and data.strip():
            self.headings.append(data)


@pytest.fixture
def run(tmp_path: Path) -> Validation:
    folder = tmp_path / "tiny-tp1"
    folder.mkdir()
    rows = ["0,10000,0,0,100:100", "5000,20000,1,101,", "15000,30000,1,102,", "25000,40000,1,103,"]
    return validate_run(write_bench(folder), steps_path=write_steps(folder, rows))


def figures(text: str) -> list[list[dict[str, Any]]]:
    """Returns the traces of each plot of a page."""
    found = re.findall(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*(\[.*?\]),\s*\{\"template\"", text, re.DOTALL)
    return [json.loads(traces) for traces in found]


def test_a_run_has_its_distributions_and_step_times(run: Validation) -> None:
    distributions, step_times = figures(report_html([run]))
    assert [trace["name"] for trace in distributions] == ["measured", "simulated"] * 3
    # TTFT measured: 0.3, 0.5, 1 s
    assert distributions[0]["x"] == pytest.approx([300.0, 500.0, 1000.0])
    assert distributions[0]["y"] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert {trace["name"] for trace in step_times} == {"decode", "prefill", "mixed"}


def test_step_times_are_left_out_where_none_were_recorded(tmp_path: Path) -> None:
    assert len(figures(report_html([validate_run(write_bench(tmp_path))]))) == 1


def test_the_page_loads_nothing_and_names_its_runs(run: Validation) -> None:
    page = Page(report_html([run]))
    assert page.loads == []
    assert page.headings == ["tiny-tp1/run"]


def test_a_report_is_written_into_a_new_folder(run: Validation, tmp_path: Path) -> None:
    assert write_report([run], tmp_path / "new" / "plots") == tmp_path / "new" / "plots" / FILE_NAME
    assert [path.name for path in (tmp_path / "new" / "plots").iterdir()] == [FILE_NAME]


def test_nothing_is_left_behind_when_writing_fails(
    run: Validation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, text: str) -> None:
        raise SimllmError(f"{path}: cannot be written: disk full")

    monkeypatch.setattr("simllm.sim.validate.report.write_text_whole", fail)
    with pytest.raises(SimllmError, match="disk full"):
        write_report([run], tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
