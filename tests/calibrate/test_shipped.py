"""The shipped H200 file follows from the samples beside it, and is as good as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simllm.calibrate.fit import by_key, fit_samples, predict_s
from simllm.calibrate.samples import read_samples
from simllm.hwmodels import op_profile
from simllm.units import US

FOLDER = Path(op_profile.__file__).parent / "profiles"
PROFILE = op_profile.load_op_profile(FOLDER / "h200-sxm.ops.yaml")
SAMPLES, HOST = read_samples(FOLDER / "h200-sxm.samples.parquet")
ENTRIES = {(entry.op, entry.implementation, entry.dtype): entry for entry in PROFILE.content.ops}


def test_the_file_names_the_host_that_its_samples_come_from():
    assert dict(PROFILE.content.host) == HOST
    assert {"name", "driver_version", "torch", "triton", "date"} <= set(HOST)


def test_every_measured_op_is_in_the_file():
    assert set(by_key(SAMPLES)) == set(ENTRIES)


@pytest.mark.parametrize("key", sorted(ENTRIES), ids=" ".join)
def test_a_new_fit_of_the_samples_predicts_what_the_file_does(key):
    group = by_key(SAMPLES)[key]
    points = [sample.point for sample in group]
    fitted = predict_s(fit_samples(group, PROFILE.device), points, PROFILE.device)
    stored = [PROFILE.predict(point).time_s for point in points]
    assert np.median(np.abs(fitted / stored - 1)) < 0.005


@pytest.mark.parametrize("key", sorted(ENTRIES), ids=" ".join)
def test_no_sample_that_made_the_file_counts_as_extrapolated(key):
    steady = [sample.point for sample in by_key(SAMPLES)[key] if not sample.is_noisy]
    assert not any(PROFILE.predict(point).is_extrapolated for point in steady)


@pytest.mark.parametrize(
    ("key", "median", "p90"),
    [
        (("gemm", "cublas", "bf16"), 0.03, 0.085),
        (("gemm", "cublas", "fp8"), 0.03, 0.08),
        (("gemm", "triton", "bf16"), 0.035, 0.10),
        (("gemm", "triton", "fp8"), 0.03, 0.08),
        (("attention_prefill", "sdpa-cudnn", "bf16"), 0.03, 0.08),
        (("attention_prefill", "triton", "bf16"), 0.04, 0.12),
    ],
)
def test_errors_on_unseen_shapes_stay_within_their_budget(key, median, p90):
    assert ENTRIES[key].held_out.median <= median
    assert ENTRIES[key].held_out.p90 <= p90


def test_a_large_product_is_predicted_at_what_an_h200_sustains():
    sample = max(by_key(SAMPLES)["gemm", "cublas", "bf16"], key=lambda sample: sample.flops)
    assert PROFILE.predict(sample.point).time_s == pytest.approx(sample.time_us * US, rel=0.06)
