"""What a shorter budget costs is measured on points that no fit saw, and the shipped table says it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import simllm
from simllm.calibrate.budget import BudgetRow, budget_rows, shipped_rows, shortfall_line, table_text
from simllm.calibrate.plan import make_plan
from simllm.calibrate.samples import Sample, read_samples
from simllm.errors import CalibrationError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.op_model import form_of
from simllm.hwmodels.op_point import work
from simllm.units import US

DEVICE = load_device("h200-sxm")
PLAN = make_plan(["rms_norm"], ["triton"])


def synthesised(noise: float) -> list[Sample]:
    form = form_of("rms_norm")
    values = {coefficient.name: coefficient.initial for coefficient in form.coefficients}
    times = form.seconds(form.features(PLAN, DEVICE), values)
    factors = np.exp(np.random.default_rng(0).normal(0.0, noise, len(PLAN)))
    return [
        Sample(point, float(time_s * factor) / US, 0.0, 20, False, 1.0, work(point).hbm_bytes, wall_s=0.5)
        for point, time_s, factor in zip(PLAN, times, factors, strict=True)
    ]


def test_more_of_the_plan_predicts_unseen_points_no_worse():
    small, whole = budget_rows(synthesised(0.05), DEVICE, shares=(0.3, 1.0))
    assert (small.num_points, whole.num_points) == (round(0.3 * len(PLAN)), len(PLAN))
    # Half a second a point.
    assert whole.measuring_s == round(0.5 * len(PLAN))
    assert whole.median <= small.median
    assert (small.whole_median, small.whole_p90) == (whole.median, whole.p90)


def test_exact_samples_are_predicted_exactly_from_part_of_them():
    (row,) = budget_rows(synthesised(0.0), DEVICE, shares=(0.5,))
    assert row.num_fits == 1
    assert row.p90 < 0.01


def test_a_share_that_fits_nothing_is_an_error():
    with pytest.raises(CalibrationError, match="too few to fit anything"):
        budget_rows(synthesised(0.0), DEVICE, shares=(0.01,))


def test_the_shipped_table_reads_back_as_it_is_written():
    rows = shipped_rows()
    assert rows[-1].share == 1.0
    assert table_text(rows).splitlines()[2:] == [",".join(map(str, row)) for row in rows]
    assert all(isinstance(row, BudgetRow) for row in rows)


def test_a_longer_budget_never_fits_less():
    rows = shipped_rows()
    assert [row.num_fits for row in rows] == sorted(row.num_fits for row in rows)
    assert rows[0].p90 > rows[0].whole_p90


def test_the_line_names_the_nearest_row_below():
    rows = {row.share: row for row in shipped_rows()}
    line = shortfall_line(0.4)
    assert line.startswith("40% of the plan is measured; on an H200, 35% gave")
    assert f"{rows[0.35].median:.1%} (median)" in line
    assert "10% gave" in shortfall_line(0.01)


def test_the_documentation_shows_the_shipped_table():
    docs = Path(simllm.__file__).parent / "docs"
    spec = importlib.util.spec_from_file_location("generate_calibrate", docs / "generate_calibrate.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (docs / "calibrate.md").read_text(encoding="utf-8")
    assert f"{script.BEGIN}\n{script.budgets()}\n{script.END}" in page, "run `make generated`"


def test_the_shipped_table_is_about_the_samples_as_they_are():
    samples, _ = read_samples(Path(simllm.__file__).parent / "hwmodels/profiles/h200-sxm.samples.parquet")
    assert shipped_rows()[-1].num_points == len(samples)
