"""The page of a calibration shows the profile's own numbers, and needs nothing from the network."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")

from simllm.calibrate.report import report_html
from simllm.calibrate.report_data import describe_point, matrix_roofs, report_points
from simllm.calibrate.samples import read_samples
from simllm.hwmodels import profile as profiles
from simllm.hwmodels.op_point import OpPoint
from simllm.hwmodels.profile import datasheet_profile, load_profile

FOLDER = Path(profiles.__file__).parent / "profiles"
PROFILE = load_profile(FOLDER / "h200-sxm.yaml")
SAMPLES, _ = read_samples(FOLDER / "h200-sxm.samples.parquet")


class Page(HTMLParser):
    """Collects the rows of all tables, the ids of figures, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.is_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loaded += [str(named[key]) for key in ("src", "href") if named.get(key)]
        if tag == "tr":
            self.rows.append([])
        elif tag == "div" and "id" in named:
            self.ids.append(str(named["id"]))
        self.is_cell = tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.is_cell:
            self.rows[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self.is_cell = False


@pytest.fixture(scope="module")
def text() -> str:
    return report_html(PROFILE, SAMPLES)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def traces(text: str, figure: str) -> list[dict[str, object]]:
    """Returns the traces of a figure as they stand in the page."""
    start = re.search(rf'Plotly\.newPlot\(\s*"{figure}",\s*', text)
    assert start is not None
    found, _ = json.JSONDecoder().raw_decode(text, start.end())
    return found


def numbers(values: object) -> list[float]:
    """Returns the numbers of an axis, which plotly may store as packed bytes."""
    if isinstance(values, dict):
        packed = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        return [float(value) for value in packed]
    assert isinstance(values, list)
    return values


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.loaded == []


def test_the_page_has_every_figure(page: Page) -> None:
    assert [name for name in page.ids if "-" in name or name in ("roofline",)] == [
        "roofline",
        "predicted-against-measured",
        "residuals-by-shape",
        "ladder-of-bandwidths",
    ]


def test_the_table_of_errors_holds_the_numbers_of_the_profile(page: Page) -> None:
    shown = {row[0]: row[1:5] for row in page.rows if len(row) == 6}
    assert PROFILE.ops is not None
    for entry in PROFILE.ops.entries:
        errors = entry.held_out
        expected = [str(entry.num_samples), *(f"{v:.1%}" for v in (errors.median, errors.p90, errors.worst))]
        assert shown[f"{entry.op} {entry.implementation} {entry.dtype}"] == expected


def test_the_host_is_the_profiles(page: Page) -> None:
    shown = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert PROFILE.host.items() <= shown.items()


def test_the_roofline_shows_the_measured_points_under_the_probed_roofs(text: str) -> None:
    assert PROFILE.ops is not None
    points = report_points(PROFILE.ops, SAMPLES)
    by_name = {str(trace["name"]): trace for trace in traces(text, "roofline")}
    for key, group in points.items():
        assert len(by_name[key]["text"]) == sum(point.flops_per_s > 0 for point in group)
    assert f"HBM {PROFILE.ladder['hbm_read'].value / 1e12:.2f} TB/s" in by_name
    assert f"bf16 {matrix_roofs(points)['bf16'] / 1e12:.0f} TFLOP/s" in by_name


def test_equal_inputs_give_equal_pages(text: str) -> None:
    assert report_html(PROFILE, SAMPLES) == text


def test_a_profile_without_measurements_gives_a_page_that_says_so() -> None:
    page = report_html(datasheet_profile(PROFILE.device), [])
    assert "No operation was fitted." in page
    assert "No launch was probed." in page


def test_the_ladder_shows_the_rungs_of_the_profile(text: str, page: Page) -> None:
    (bars,) = traces(text, "ladder-of-bandwidths")
    rungs = {name: rung for name, rung in PROFILE.ladder.items() if rung.unit == "B/s"}
    assert bars["y"] == [name.replace("_", " ") for name in rungs]
    assert numbers(bars["x"]) == pytest.approx([rung.value / 1e12 for rung in rungs.values()])
    shown = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert shown["graph gap"] == f"{PROFILE.ladder['graph_gap'].value * 1e6:.2f} us"


def test_predictions_stand_over_the_times_that_were_measured(text: str) -> None:
    assert PROFILE.ops is not None
    points = report_points(PROFILE.ops, SAMPLES)
    by_name = {str(trace["name"]): trace for trace in traces(text, "predicted-against-measured")}
    key = "gemm cublas bf16"
    assert numbers(by_name[key]["x"]) == pytest.approx([point.measured_s * 1e6 for point in points[key]])
    assert numbers(by_name[key]["y"]) == pytest.approx([point.predicted_s * 1e6 for point in points[key]])
    first = next(sample for sample in SAMPLES if describe_point(sample.point) == points[key][0].label)
    assert points[key][0].predicted_s == pytest.approx(PROFILE.ops.predict(first.point).time_s)


def test_a_point_is_named_by_the_sizes_that_it_has() -> None:
    point = OpPoint("gemm", "cublas", "bf16", m=8, n=16, k=32, sustained=True)
    assert describe_point(point) == "m 8, n 16, k 32, sustained"
