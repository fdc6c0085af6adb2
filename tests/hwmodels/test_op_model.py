"""The formulas that price one operation: hand-checked limits, and laws that hold for any sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import ProfileError, SimllmError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.op_features import decode_features, flash_splits, gemm_features, prefill_features
from simllm.hwmodels.op_model import FORMS, form_of, smooth_max
from simllm.hwmodels.op_point import WORK, OpPoint, work
from simllm.hwmodels.op_profile import dump_op_profile, load_op_profile

DEVICE = load_device("h200-sxm")
GEMM = OpPoint("gemm", "cublas", "bf16", m=4096, n=4096, k=4096)
PREFILL = OpPoint(
    "attention_prefill",
    "triton",
    "bf16",
    batch=1,
    query_len=2048,
    num_q_heads=32,
    num_kv_heads=8,
    head_dim=128,
)
DECODE = OpPoint(
    "attention_decode",
    "triton",
    "bf16",
    batch=32,
    query_len=1,
    context_len=8192,
    num_q_heads=32,
    num_kv_heads=8,
    head_dim=128,
)
NORM = OpPoint("rms_norm", "triton", "bf16", m=4096, n=4096)


def price(point: OpPoint, **values: float) -> float:
    form = form_of(point.op)
    chosen = {coefficient.name: coefficient.initial for coefficient in form.coefficients} | values
    return float(form.seconds(form.features([point], DEVICE), chosen)[0])


def test_the_smooth_maximum_lies_between_the_largest_term_and_the_sum():
    terms = np.array([3.0]), np.array([4.0])
    assert smooth_max(1.0, *terms) == pytest.approx(7.0)
    assert smooth_max(2.0, *terms) == pytest.approx(5.0)  # 3, 4, 5
    assert smooth_max(200.0, *terms) == pytest.approx(4.0)
    assert smooth_max(2.0, np.array([0.0]), np.array([0.0])) == 0.0


def test_a_product_of_one_row_streams_its_weights():
    # 28,672 x 8,192 bf16 weights are 470 MB: at 4 TB/s 117 us, beside which nothing counts but the launch.
    point = replace(GEMM, m=1, n=28672, k=8192)
    expected = work(point).hbm_bytes / 4e12 + 3e-6
    assert price(point, hbm_bytes_per_s=4e12, launch_s=3e-6, overlap=40.0) == pytest.approx(
        expected, rel=0.02
    )


def test_a_large_product_runs_at_the_rate_that_power_allows():
    point = replace(GEMM, m=8192, n=8192, k=8192)
    values = {"sustained_flops_per_s": 7e14, "sustained_bytes_per_s": 1e15, "matrix_flops_per_s": 3e15}
    # 2 x 8192^3 = 1.0995e12 FLOPs at 7e14 per second are 1.571 ms.
    assert price(point, operand_bytes_per_s=4e14, **values) == pytest.approx(1.571e-3, rel=0.01)


def test_one_tile_too_many_costs_another_wave():
    # 132 SMs; n = 66 tiles of 256 columns and m = 512 give 2 x 66 = 132 tiles of 256 rows at most.
    values = {"sustained_flops_per_s": 3e15, "hbm_bytes_per_s": 1e13, "matrix_flops_per_s": 9e14}
    wide = replace(GEMM, implementation="triton", m=128, n=132 * 256, k=8192)
    full, more = price(wide, **values), price(replace(wide, n=133 * 256), **values)
    assert more > 1.3 * full


def test_rows_are_cut_into_equal_tiles_of_whole_steps():
    features = gemm_features([replace(GEMM, m=257)], DEVICE)
    # Two tiles of ceil8(257 / 2) = 136 rows: 2 x 136 x 256 x 4096 FLOPs, times 132 SMs.
    assert 2.0 * 136 * 128 * 4096 * 132 in features["tile_flops"]


def test_a_prefill_tile_walks_the_context_and_the_keys_before_it():
    features = prefill_features([replace(PREFILL, query_len=256, context_len=1024)], DEVICE)
    # Two tiles of 128 rows see 1024 + 128 and 1024 + 256 keys; 32 heads.
    assert features["mean_exponentials"][0] == 32 * 128 * (1152 + 1280)
    assert features["longest_exponentials"][0] == 128 * 1280 * 132


def test_decoding_splits_contexts_until_the_grid_fills_the_sms():
    features = decode_features([replace(DECODE, batch=1)], DEVICE)
    # 4 CTAs on each of 132 SMs over 8 KV heads are 66 parts, of 256 tiles of 32 keys.
    assert features["mean_ctas"][0] == 8 * 66 / 132
    assert features["is_split"][0] == 1.0
    assert decode_features([replace(DECODE, batch=128)], DEVICE)["is_split"][0] == 0.0


def test_flash_splits_only_what_leaves_sms_idle():
    # 264 slots: 211 CTAs are 80 %, enough to leave the keys whole.
    assert flash_splits(212, 32768, 128, 132) == 1
    assert flash_splits(1, 128, 128, 132) == 1
    assert 4 <= flash_splits(60, 32768, 128, 132) <= 9


def test_one_long_request_makes_a_batch_slower():
    assert price(replace(DECODE, max_context_len=131072)) > 1.5 * price(DECODE)


SIZES = st.integers(1, 64)
GROWING = [
    (GEMM, "m"),
    (GEMM, "n"),
    (GEMM, "k"),
    (replace(GEMM, implementation="triton"), "m"),
    (PREFILL, "query_len"),
    (PREFILL, "context_len"),
    (PREFILL, "batch"),
    (DECODE, "batch"),
    (DECODE, "context_len"),
    (NORM, "m"),
    (NORM, "n"),
]


@pytest.mark.parametrize(("point", "size"), GROWING)
@settings(max_examples=40, deadline=None)
@given(factor=SIZES)
def test_twice_as_much_of_any_size_is_never_faster(point, size, factor):
    small = replace(point, **{size: 64 * factor})
    assert price(replace(point, **{size: 128 * factor})) >= price(small) * (1 - 1e-9)


@pytest.mark.parametrize("point", [GEMM, PREFILL, DECODE, NORM])
def test_a_higher_rate_never_makes_anything_slower(point):
    before = price(point)
    for coefficient in form_of(point.op).coefficients:
        if coefficient.unit.endswith("/s"):
            assert price(point, **{coefficient.name: 2 * coefficient.initial}) <= before * (1 + 1e-12)


def test_points_are_priced_alike_alone_and_among_others():
    points = [replace(GEMM, m=m) for m in (1, 33, 257, 4096)]
    form = form_of("gemm")
    values = {coefficient.name: coefficient.initial for coefficient in form.coefficients}
    together = form.seconds(form.features(points, DEVICE), values)
    assert together.tolist() == [price(point) for point in points]


def test_every_op_with_work_has_a_form_and_every_coefficient_starts_within_its_bounds():
    for op in WORK:
        assert form_of(op).name in FORMS
    for form in FORMS.values():
        assert all(c.low <= c.initial <= c.high for c in form.coefficients)


def test_an_unknown_op_is_answered_with_the_nearest():
    with pytest.raises(SimllmError, match="did you mean 'softmax'"):
        work(replace(NORM, op="softmx"))


def content_of(point: OpPoint) -> dict[str, object]:
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


def test_a_profile_predicts_what_its_form_says_and_tells_what_it_never_saw(tmp_path):
    path = tmp_path / "toy.ops.yaml"
    path.write_text(dump_op_profile(content_of(GEMM)))
    profile = load_op_profile(path)
    prediction = profile.predict(GEMM)
    assert prediction.time_s == price(GEMM)
    assert prediction.flops == 2 * 4096**3
    assert not prediction.is_extrapolated
    assert profile.predict(replace(GEMM, m=16384)).is_extrapolated


def test_an_op_that_was_not_calibrated_is_named_with_the_nearest(tmp_path):
    path = tmp_path / "toy.ops.yaml"
    path.write_text(dump_op_profile(content_of(GEMM)))
    with pytest.raises(ProfileError, match="no calibration of 'gemm triton bf16'; did you mean 'gemm cublas"):
        load_op_profile(path).predict(replace(GEMM, implementation="triton"))


def test_a_file_whose_coefficients_do_not_fit_its_form_is_one_line(tmp_path):
    content = content_of(GEMM)
    del content["ops"][0]["coefficients"]["overlap"]
    path = tmp_path / "toy.ops.yaml"
    path.write_text(dump_op_profile(content))
    with pytest.raises(ProfileError, match="form 'gemm' needs"):
        load_op_profile(path)
