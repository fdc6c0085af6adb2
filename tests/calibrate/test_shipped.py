"""The shipped H200 profile follows from the samples beside it, and is as good as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simllm.calibrate.efficiencies import derive_efficiencies
from simllm.calibrate.fit import by_key, fit_samples, predict_s
from simllm.calibrate.fitted_file import fit_all, fitted_text
from simllm.calibrate.ladder import ladder_of
from simllm.calibrate.samples import read_samples
from simllm.hwmodels import profile
from simllm.hwmodels.op_model import form_of
from simllm.hwmodels.op_point import OpPoint
from simllm.hwmodels.op_profile import OpProfile
from simllm.hwmodels.profile import load_profile
from simllm.hwmodels.profile_file import read_calibrated
from simllm.units import US

FOLDER = Path(profile.__file__).parent / "profiles"
PATH = FOLDER / "h200-sxm.yaml"
WHOLE = load_profile("h200-sxm")
assert WHOLE.ops is not None
PROFILE: OpProfile = WHOLE.ops
SAMPLES, HOST = read_samples(FOLDER / "h200-sxm.samples.parquet")
GROUPS = by_key(SAMPLES)
ENTRIES = {(entry.op, entry.implementation, entry.dtype): entry for entry in PROFILE.entries}
KEYS = sorted(ENTRIES)
# A fit on other processors may end a little elsewhere.
SAME_PREDICTION, SAME_ERROR = 0.005, 0.002


def test_the_file_names_the_host_that_its_samples_come_from():
    assert HOST.items() <= WHOLE.host.items()
    assert {"name", "driver_version", "torch", "triton", "date"} <= set(HOST)


@pytest.mark.slow
def test_a_new_fit_of_the_samples_gives_the_shipped_file():
    entries = fit_all(SAMPLES, WHOLE.device)
    text = fitted_text(WHOLE.name, WHOLE.device, HOST, entries, SAMPLES, before=read_calibrated(PATH))
    if text == PATH.read_text():
        return
    assert [(entry["op"], entry["implementation"], entry["dtype"]) for entry in entries] == KEYS
    for entry, key in zip(entries, KEYS, strict=True):
        shipped = ENTRIES[key].held_out
        assert entry["held_out"]["median"] == pytest.approx(shipped.median, abs=SAME_ERROR), key


@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_a_new_fit_of_the_samples_predicts_what_the_file_does(key):
    points = [sample.point for sample in GROUPS[key]]
    fitted = predict_s(fit_samples(GROUPS[key], WHOLE.device), points, WHOLE.device)
    assert np.median(np.abs(fitted / PROFILE.seconds(points) - 1)) < SAME_PREDICTION


def test_ladder_and_efficiencies_follow_from_samples_and_fits():
    ladder = ladder_of(SAMPLES, WHOLE.device)
    assert {name: rung.value for name, rung in WHOLE.ladder.items()} == {
        name: rung["value"] for name, rung in ladder.items()
    }
    derived = derive_efficiencies(ladder, [entry.model_dump() for entry in PROFILE.entries], WHOLE.device)
    measured = {name: one.value for name, one in WHOLE.coefficients.items() if not one.estimated}
    assert measured == pytest.approx({name: one["value"] for name, one in derived.items()}, rel=1e-4)


def test_the_ladder_rises_from_hbm_over_l2_to_shared_memory():
    rate = {name: rung.value for name, rung in WHOLE.ladder.items()}
    assert rate["hbm_copy"] < rate["hbm_read"] < rate["l2"] < rate["sram"]
    assert rate["hbm_read"] < WHOLE.device.hbm_bytes_per_s
    assert rate["graph_gap"] < rate["eager_launch"]


@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_no_sample_that_made_the_file_counts_as_extrapolated(key):
    steady = [sample.point for sample in GROUPS[key] if not sample.is_noisy]
    assert not any(PROFILE.predict(point).is_extrapolated for point in steady)


@pytest.mark.parametrize("key", KEYS, ids=" ".join)
def test_every_coefficient_is_known_by_the_samples(key):
    form = form_of(key[0])
    bounds = {one.name: one.bounds(WHOLE.device, key[2]) for one in form.coefficients}
    for name, fitted in ENTRIES[key].coefficients.items():
        low, high = bounds[name]
        if name in form.absent:
            assert fitted.high / fitted.low < high / low, f"{name} could be anything"


# Medians and 90th percentiles of errors on shapes that no fit saw.
BUDGETS = [
    (("gemm", "cublas", "bf16"), 0.03, 0.085),
    (("gemm", "cublas", "fp8"), 0.03, 0.08),
    (("gemm", "triton", "bf16"), 0.03, 0.08),
    (("gemm", "triton", "fp8"), 0.03, 0.08),
    (("gemm_block_scaled", "triton", "fp8"), 0.03, 0.10),
    (("attention_prefill", "sdpa-cudnn", "bf16"), 0.03, 0.08),
    (("attention_prefill", "triton", "bf16"), 0.04, 0.10),
    (("attention_decode", "triton", "bf16"), 0.04, 0.106),
    (("attention_decode", "triton", "fp8"), 0.04, 0.10),
    (("mla_decode", "triton", "bf16"), 0.05, 0.125),
]


@pytest.mark.parametrize(("key", "median", "p90"), BUDGETS, ids=lambda value: str(value))
def test_errors_on_unseen_shapes_stay_within_their_budget(key, median, p90):
    assert ENTRIES[key].held_out.median <= median
    assert ENTRIES[key].held_out.p90 <= p90


def test_a_large_product_is_predicted_at_what_an_h200_sustains():
    sample = max(GROUPS["gemm", "cublas", "bf16"], key=lambda sample: sample.flops)
    prediction = PROFILE.predict(sample.point)
    assert prediction.time_s == pytest.approx(sample.time_us * US, rel=0.06)
    assert prediction.bound == "power"
    assert PROFILE.predict(sample.point, sustained=False).time_s < prediction.time_s


HEADS = {"num_q_heads": 32, "num_kv_heads": 8, "head_dim": 128}
MIXTURE = OpPoint("grouped_gemm", "triton", "bf16", m=64, n=1536, k=2048, num_experts=128, top_k=8)
GROWING = [
    (OpPoint("gemm", "cublas", "bf16", m=256, n=6144, k=4096), ("m", "n", "k")),
    (OpPoint("gemm", "cublas", "fp8", m=64, n=4096, k=14336), ("m", "n", "k")),
    (OpPoint("gemm", "triton", "bf16", m=512, n=6144, k=4096), ("m", "n", "k")),
    (MIXTURE, ("n", "k")),
    (
        OpPoint("attention_prefill", "sdpa-cudnn", "bf16", batch=1, query_len=1024, **HEADS),
        ("batch", "query_len", "context_len"),
    ),
    (
        OpPoint("attention_prefill", "triton", "bf16", batch=1, query_len=512, context_len=512, **HEADS),
        ("batch", "query_len", "context_len"),
    ),
    (
        OpPoint("attention_decode", "triton", "bf16", batch=16, query_len=1, context_len=2048, **HEADS),
        ("batch", "context_len"),
    ),
    (OpPoint("rms_norm", "triton", "bf16", m=64, n=4096), ("m", "n")),
]  # fmt: skip
AXES = [(point, axis) for point, axes in GROWING for axis in axes]
MOST_DIP = 0.02


def dips(point: OpPoint, axis: str, steps_per_octave: int) -> list[tuple[int, float]]:
    """Sizes along an axis that cost less than a smaller one by more than the allowed dip, and by how much."""
    start = max(64, getattr(point, axis))
    steps = range(-3 * steps_per_octave, 5 * steps_per_octave + 1)
    sizes = sorted({max(1, round(start * 2 ** (step / steps_per_octave)) // 16) * 16 for step in steps})
    seconds = PROFILE.seconds([replace(point, **{axis: size}) for size in sizes])
    shares = seconds / np.maximum.accumulate(seconds)
    return [(size, share) for size, share in zip(sizes, shares, strict=True) if share < 1 - MOST_DIP]


@pytest.mark.parametrize(("point", "axis"), AXES, ids=lambda value: str(getattr(value, "op", value)))
def test_more_of_any_size_costs_more_but_for_dips_of_two_percent(point, axis):
    assert dips(point, axis, steps_per_octave=4) == []


def test_a_mixture_costs_more_with_twice_the_tokens():
    # Between them it may not: where the mean expert just fills a tile, half of all experts need a second one,
    # and beyond that the kernel takes tiles of twice the rows.
    assert dips(MIXTURE, "m", steps_per_octave=1) == []
