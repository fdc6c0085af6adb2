"""Predictions from the fits of a profile: what they say, what they never saw, what is wrong with a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simllm.errors import ProfileError
from simllm.hwmodels.op_model import form_of
from simllm.hwmodels.op_point import OpPoint
from simllm.hwmodels.op_profile import OpProfile, load_op_profile
from simllm.hwmodels.profile_file import dump_profile

GEMM = OpPoint("gemm", "cublas", "bf16", m=4096, n=4096, k=4096)
LARGE = replace(GEMM, m=8192, n=8192, k=8192)


def content_of(point: OpPoint) -> dict[str, Any]:
    form = form_of(point.op)
    return {
        "schema_version": 1,
        "kind": "calibrated",
        "name": "toy",
        "device": "h200-sxm",
        "host": {"name": "GPU"},
        "ops": [
            {
                "op": point.op,
                "implementation": point.implementation,
                "dtype": point.dtype,
                "form": form.name,
                "num_samples": 9,
                "held_out": {
                    "median": 0.02,
                    "p90": 0.05,
                    "worst": 0.2,
                    "grouped_by": "(n, k)",
                    "num_groups": 3,
                    "num_samples": 9,
                },
                "valid": {"m": [1, 8192], "n": [1024, 8192], "k": [512, 8192]},
                "coefficients": {
                    c.name: {"value": c.initial, "low": c.low, "high": c.high} for c in form.coefficients
                },
            }
        ],
    }


def load(content: dict[str, Any], folder: Path) -> OpProfile:
    path = folder / "toy.yaml"
    path.write_text(dump_profile(content))
    return load_op_profile(path)


@pytest.fixture
def profile(tmp_path: Path) -> OpProfile:
    return load(content_of(GEMM), tmp_path)


def test_a_profile_predicts_what_its_form_says(profile):
    form = form_of("gemm")
    values = {one.name: one.initial for one in form.coefficients}
    prediction = profile.predict(GEMM)
    assert prediction.time_s == form.seconds(form.features([GEMM], profile.device), values)[0]
    assert prediction.flops == 2 * 4096**3
    assert prediction.bound == "power"


def test_many_points_are_priced_at_once_as_they_are_alone(profile):
    points = [replace(GEMM, m=m) for m in (1, 33, 4096)]
    assert profile.seconds(points).tolist() == [profile.predict(point).time_s for point in points]
    assert profile.bounds(points) == [profile.predict(point).bound for point in points]


def test_without_the_power_limit_a_large_product_is_faster_and_a_small_one_is_not(profile):
    # 2 x 8192^3 FLOPs at 9e14 instead of 7e14 per second.
    assert profile.predict(LARGE, sustained=False).time_s < 0.85 * profile.predict(LARGE).time_s
    assert profile.predict(LARGE, sustained=False).bound == "matrix"
    row = replace(GEMM, m=1)
    assert profile.predict(row, sustained=False).time_s == pytest.approx(
        profile.predict(row).time_s, rel=1e-3
    )


def test_a_size_beyond_the_measured_ones_is_extrapolated(profile):
    assert not profile.predict(GEMM).is_extrapolated
    assert profile.predict(replace(GEMM, m=16384)).is_extrapolated


def test_a_size_that_was_never_measured_at_all_is_extrapolated(profile):
    assert profile.predict(replace(GEMM, num_experts=8, top_k=2)).is_extrapolated


def test_a_profile_says_what_it_has(profile):
    assert profile.has("gemm", "cublas", "bf16")
    assert not profile.has("gemm", "cublas", "fp8")


def test_an_op_that_was_not_calibrated_is_named_with_the_nearest(profile):
    with pytest.raises(ProfileError, match="no calibration of 'gemm triton bf16'; did you mean 'gemm cublas"):
        profile.predict(replace(GEMM, implementation="triton"))


def test_what_the_samples_did_not_show_is_left_out_of_a_file_and_has_no_effect(tmp_path):
    content = content_of(GEMM)
    for name in ("sustained_flops_per_s", "sustained_bytes_per_s", "heat"):
        del content["ops"][0]["coefficients"][name]
    profile = load(content, tmp_path)
    assert profile.predict(LARGE).time_s == profile.predict(LARGE, sustained=False).time_s
    assert profile.coefficients(LARGE)["heat"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ops: ops["coefficients"].pop("overlap"), "form 'gemm' needs overlap"),
        (
            lambda ops: ops["coefficients"].update(overlp=ops["coefficients"].pop("overlap")),
            "has no 'overlp'; did you mean 'overlap'",
        ),
        (lambda ops: ops.update(form="stream"), "form 'stream' does not price it, 'gemm' does"),
        (lambda ops: ops.update(form="gem"), "form 'gem' does not price it"),
    ],
)
def test_a_file_whose_coefficients_do_not_fit_its_form_is_one_line(tmp_path, change, message):
    content = content_of(GEMM)
    change(content["ops"][0])
    with pytest.raises(ProfileError, match=message) as error:
        load(content, tmp_path)
    assert "\n" not in str(error.value)


def test_a_profile_without_operations_says_how_to_make_them(tmp_path):
    content = content_of(GEMM) | {"ops": [], "efficiency": {"hbm": {"value": 0.9, "source": "a copy"}}}
    with pytest.raises(ProfileError, match="has no ops; 'simllm calibrate fit'"):
        load(content, tmp_path)
