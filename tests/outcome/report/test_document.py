"""The page: it stands alone, its figures are the summary's, and a browser draws it without an error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("plotly")

from simllm.sim.outcome.report.document import DATA_ID, report_charts, report_html
from simllm.sim.outcome.report.run_folder import Run, read_runs

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
# Put at the start of the page: collects what fails. At its end: tells what a reader would see, in one line.
LISTEN = """<script>window.failures = [];
addEventListener("error", event => failures.push(event.message));
addEventListener("unhandledrejection", event => failures.push(String(event.reason)));
const told = console.error; console.error = (...parts) => { failures.push(parts.join(" ")); told(...parts); };
</script>"""
TELL = """<script>addEventListener("load", () => setTimeout(() => {
const plots = [...document.querySelectorAll(".js-plotly-plot")];
const seen = {
  failures,
  plots: plots.length,
  drawn: plots.filter(plot => plot.querySelector(".cartesianlayer .trace path")).length,
  tooWide: plots.filter(plot => plot.getBoundingClientRect().right > innerWidth + 1).length,
  pageWidth: document.documentElement.scrollWidth,
  width: innerWidth,
  ink: getComputedStyle(document.querySelector(".js-plotly-plot .xtick text")).fill,
  ground: getComputedStyle(document.body).backgroundColor,
  completed: JSON.parse(document.getElementById("DATA").textContent).runs.map(run => run.summary.completed),
};
document.documentElement.innerHTML = "<pre>" + JSON.stringify(seen) + "</pre>";
}, 1500));</script>""".replace("DATA", DATA_ID)


class Page(HTMLParser):
    """What a page would load from elsewhere, its figures in cells, and its data for machines."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.cells: list[dict[str, str | None]] = []
        self.data: dict[str, Any] = {}
        self._is_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loads += [
            str(value) for name, value in attrs if name in ("src", "href") and str(value)[0] != "#"
        ]
        self._is_data = named.get("id") == DATA_ID
        if "data-key" in named:
            self.cells.append(named)

    def handle_data(self, data: str) -> None:
        if self._is_data:
            self.data = json.loads(data)
            self._is_data = False


@pytest.fixture
def pair(hand_folder: Path, unrecorded: Path) -> list[Run]:
    return read_runs([hand_folder, unrecorded])


def test_the_page_loads_nothing(pair: list[Run]) -> None:
    assert Page(report_html(pair)).loads == []


def test_the_page_s_data_are_the_summaries_as_they_lie_in_the_folders(
    pair: list[Run], hand_folder: Path
) -> None:
    data = Page(report_html(pair)).data
    summary = json.loads((hand_folder / "summary.json").read_text(encoding="utf-8"))
    assert data["runs"][0] == {"name": "hand", "summary": summary}
    assert [chart["key"] for chart in data["charts"]] == [chart.key for chart in report_charts(pair)]
    assert {one["run"] for one in data["differences"]} == {"unrecorded"}


def test_every_figure_of_the_table_equals_the_summary_s(pair: list[Run]) -> None:
    cells = Page(report_html(pair)).cells
    assert len(cells) > 40
    for cell in cells:
        value = pair[int(str(cell["data-run"]))].summary[str(cell["data-key"])]
        shown = cell.get("data-value")
        assert (None if shown is None else float(shown)) == value


def test_cost_and_faults_are_told_where_the_summary_has_them(hand: Run) -> None:
    # 2 USD of GPUs for 9 output tokens
    summary = hand.summary | {
        "gpu_hours": 1.0,
        "cost_usd": 2.0,
        "faults": {"crashes": 3, "availability": 0.5},
    }
    page = report_html([Run("faulty", summary, hand.requests, hand.steps, hand.kv)])
    assert "<td>USD per million output tokens</td><td>222,222</td>" in page
    assert "<td>crashes</td><td>3</td>" in page


def test_the_same_runs_give_the_same_page(pair: list[Run]) -> None:
    assert report_html(pair) == report_html(pair)


def test_names_cannot_break_out_of_the_page(hand: Run) -> None:
    evil = "</script><script>alert(1)</script>"
    page = report_html(
        [Run(evil, hand.summary | {"scenario_name": evil}, hand.requests, hand.steps, hand.kv)]
    )
    assert "<script>alert(1)" not in page
    assert Page(page).data["runs"][0]["name"] == evil


@pytest.mark.parametrize(
    ("width", "dark", "ink", "ground"),
    [
        (1250, False, "rgb(34, 34, 34)", "rgb(255, 255, 255)"),
        (390, True, "rgb(221, 221, 221)", "rgb(22, 22, 24)"),
    ],
    ids=["desk-light", "phone-dark"],
)
def test_a_browser_draws_every_chart_without_an_error(
    pair: list[Run], tmp_path: Path, width: int, dark: bool, ink: str, ground: str
) -> None:
    seen = look_at(report_html(pair), tmp_path / "page.html", width, dark=dark)
    assert seen["failures"] == []
    assert seen["drawn"] == seen["plots"] == len(report_charts(pair))
    assert seen["tooWide"] == 0
    assert seen["pageWidth"] <= seen["width"]
    assert (seen["ink"], seen["ground"]) == (ink, ground)
    assert seen["completed"] == [run.summary["completed"] for run in pair]


def test_a_browser_tells_of_a_script_that_fails(pair: list[Run], tmp_path: Path) -> None:
    broken = report_html(pair).replace("</body>", "<script>throw Error('on purpose')</script></body>")
    (failure,) = look_at(broken, tmp_path / "page.html", 800)["failures"]
    assert "on purpose" in failure


def look_at(page: str, path: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Returns what a headless Chromium without a network sees of a page."""
    found = (os.environ.get("BROWSER_PATH"), *map(shutil.which, BROWSERS))
    browser = next(filter(None, found), None)
    if browser is None:
        pytest.skip(f"needs a Chromium: BROWSER_PATH, or one of {', '.join(BROWSERS)}")
    heard = page.replace("<script>", f"{LISTEN}<script>", 1).replace("</body>", f"{TELL}</body>")
    path.write_text(heard, encoding="utf-8")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--window-size={width},900", "--virtual-time-budget=20000", "--dump-dom",
        f"--user-data-dir={path.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]  # fmt: skip
    ran = subprocess.run(
        [browser, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    (told,) = re.findall(r"<pre>(.*)</pre>", ran.stdout)
    seen: dict[str, Any] = json.loads(unescape(told))
    return seen
