"""The shipped power limit: its samples give the shipped section again, within the error that it promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml

import simllm
from simllm.calibrate.power_command import source_of
from simllm.calibrate.power_fit import fit_power, full_clock_ms, play
from simllm.calibrate.power_samples import read_power_samples

ROOT = Path(simllm.__file__).parent
FOLDER = ROOT / "hwmodels" / "profiles"
SAMPLES, HOST = read_power_samples(FOLDER / "h200-sxm.power.samples.parquet")
SHIPPED = yaml.safe_load((FOLDER / "h200-sxm.yaml").read_text(encoding="utf-8"))["power"]


@pytest.fixture(scope="module")
def fitted():
    return fit_power(SAMPLES, source_of(HOST))


def test_refitting_the_samples_gives_the_shipped_section(fitted):
    assert fitted.model_dump(mode="json") == SHIPPED


def test_the_samples_name_their_host():
    assert HOST["name"] == "NVIDIA H200"
    assert {"date", "driver_version", "power_limit", "torch"} <= set(HOST)


def test_errors_on_sequences_left_out_stay_within_their_budget(fitted):
    assert fitted.held_out.num_sequences >= 9
    assert fitted.held_out.step <= 0.015
    assert fitted.held_out.sequence <= 0.01


def test_prefill_and_decodes_of_every_sequence_are_right_in_their_sum(fitted):
    for name, times_s in play(fitted.limit(), SAMPLES).items():
        rows = [row for row in SAMPLES if row.sequence == name]
        for kind in ("prefill", "decode"):
            chosen = np.array([row.kind == kind for row in rows])
            measured_s = np.array([row.time_ms * 1e-3 for row in rows])[chosen].sum()
            assert np.array(times_s)[chosen].sum() == pytest.approx(measured_s, rel=0.015), (name, kind)


def test_a_step_after_a_rest_runs_at_full_clock_and_sustained_ones_do_not(fitted):
    first_s, *_, last_s = play(fitted.limit(), SAMPLES)["sustained"]
    full_s = full_clock_ms(SAMPLES)["p2048"] * 1e-3
    assert first_s == pytest.approx(full_s, rel=0.02)
    assert last_s > 1.13 * full_s


def test_the_page_of_the_power_limit_shows_the_shipped_figures():
    script = runpy.run_path(str(ROOT / "docs" / "generate_power.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert script["page"](text) == text, "run `python docs/generate_power.py`"
