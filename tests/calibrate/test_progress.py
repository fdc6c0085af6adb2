"""The bar shows how far a sweep is and when it ends."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from simllm.calibrate.progress import SweepBar, clock_text, remaining_s
from simllm.calibrate.samples import Sample
from simllm.calibrate.sweep import Sweep
from simllm.hwmodels.op_point import OpPoint

SAMPLE = Sample(OpPoint("rope", "triton", "bf16"), 5.0, 0.0, 9, False, 0.0, 0.0)


def test_the_rest_takes_as_long_per_point_as_what_was_measured():
    # 10 points took 5 s; 30 are left: 15 s.
    assert remaining_s(Sweep(100, 70, num_new=10, elapsed_s=5.0), budget_s=600.0) == 15.0


def test_a_sweep_ends_with_its_budget_if_that_comes_first():
    assert remaining_s(Sweep(100, 70, num_new=10, elapsed_s=5.0), budget_s=12.0) == 7.0
    assert remaining_s(Sweep(100, 70, num_new=10, elapsed_s=13.0), budget_s=12.0) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (65.2, "1:05"), (599.6, "10:00")])
def test_time_is_shown_in_minutes_and_seconds(seconds, text):
    assert clock_text(seconds) == text


def test_the_bar_names_what_is_measured_and_the_time_left():
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with SweepBar(600.0, console) as bar:
        bar.update(Sweep(100, 70, num_new=10, elapsed_s=5.0, last=SAMPLE))
        bar.refresh()
    shown = console.file.getvalue()
    assert "rope triton bf16" in shown
    assert "70/100" in shown
    assert "0:15 left" in shown


def test_where_no_one_looks_nothing_is_shown():
    console = Console(file=StringIO(), force_terminal=False)
    with SweepBar(600.0, console) as bar:
        bar.update(Sweep(100, 70, num_new=10, elapsed_s=5.0, last=SAMPLE))
    assert console.file.getvalue() == ""
