"""The formulas that price one operation: hand-checked limits, and laws that hold for any sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.device import load_device
from simllm.hwmodels.flash_splits import flash_splits
from simllm.hwmodels.op_decode import decode_features
from simllm.hwmodels.op_form import BOOST, smooth_max
from simllm.hwmodels.op_gemm import gemm_features
from simllm.hwmodels.op_model import FORMS, form_of
from simllm.hwmodels.op_point import PROBES, WORK, OpPoint, work
from simllm.hwmodels.op_prefill import prefill_features

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
    """Seconds of a point under the coefficients that every fit has, and those that are given."""
    form = form_of(point.op)
    return float(form.seconds(form.features([point], DEVICE), needed(point) | values)[0])


def needed(point: OpPoint) -> dict[str, float]:
    return {one.name: one.initial for one in form_of(point.op).coefficients if one.absent is None}


def full(point: OpPoint) -> dict[str, float]:
    return {one.name: one.initial for one in form_of(point.op).coefficients}


def bound(point: OpPoint, **values: float) -> str:
    form = form_of(point.op)
    return form.bounds(form.features([point], DEVICE), full(point) | values)[0]


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
    # 2 x 8192^3 = 1.0995e12 FLOPs at 7e14 per second are 1.571 ms.
    limited = {"sustained_flops_per_s": 7e14, "matrix_flops_per_s": 3e15}
    assert price(point, **limited) == pytest.approx(1.571e-3, rel=0.01)
    assert price(point, matrix_flops_per_s=3e15) < 0.4e-3
    assert bound(point) == "power"


def test_a_warm_board_meets_its_power_limit_at_a_lower_clock():
    point = replace(GEMM, m=8192, n=8192, k=8192)
    values = {"sustained_flops_per_s": 7e14, "matrix_flops_per_s": 3e15, "heat": 1.05}
    ratio = price(replace(point, sustained=True), **values) / price(point, **values)
    assert ratio == pytest.approx(1.05, rel=0.005)


def test_one_tile_too_many_costs_another_wave():
    # 132 SMs, one tile of 128 rows and 256 columns each; 8-bit products have no tiles so small that a wave of
    # them is soon over.
    wide = replace(GEMM, implementation="triton", dtype="fp8", m=128, n=132 * 256, k=8192)
    full_wave, more = (
        price(wide, hbm_bytes_per_s=1e13),
        price(replace(wide, n=133 * 256), hbm_bytes_per_s=1e13),
    )
    assert more > 1.3 * full_wave


def test_weights_of_four_bits_are_expanded_once_per_tile_of_rows():
    point = replace(GEMM, op="gemm_weight_only", implementation="triton", dtype="int4", m=64)
    slow = {"expanded_per_s": 1e11}
    assert bound(point, **slow) == "vector"
    # Two tiles of 64 rows expand the same weights twice.
    assert price(replace(point, m=128), **slow) == pytest.approx(2 * price(point, **slow), rel=0.05)


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
    # 4 CTAs on each of 132 SMs over 8 KV heads are 66 parts, of 256 tiles of 32 keys: 4 tiles, 128 keys each.
    assert features["ctas"][0] == 8 * 66 / 132
    assert features["longest_keys"][0] == 128
    assert features["is_split"][0] == 1.0
    assert decode_features([replace(DECODE, batch=128)], DEVICE)["is_split"][0] == 0.0


def test_flash_splits_only_what_leaves_sms_idle():
    # 264 slots: 211 CTAs are 80 %, enough to leave the keys whole.
    assert flash_splits(212, 32768, 128, 132) == 1
    assert flash_splits(1, 128, 128, 132) == 1
    assert 4 <= flash_splits(60, 32768, 128, 132) <= 9


def test_one_long_request_makes_a_batch_slower():
    assert price(replace(DECODE, max_context_len=131072)) > 1.5 * price(DECODE)
    assert bound(replace(DECODE, max_context_len=131072)) == "latency"


def test_contexts_are_read_in_whole_blocks_of_keys():
    # 200 keys are 7 blocks of 32: 24 keys more of each of 32 requests, 4,096 bytes a key.
    features = decode_features([replace(DECODE, context_len=200)], DEVICE)
    extra = features["hbm_bytes"][0] - work(replace(DECODE, context_len=200)).hbm_bytes
    assert extra == 32 * 24 * 4096


def test_registers_limit_how_many_ctas_an_sm_holds():
    # 16 rows need 126 registers of 64 threads, of which 8 CTAs fit; 32 rows of 128 dimensions 128 of 128
    # threads, and 4 fit; with an 8-bit cache 167, and 3 fit.
    few = decode_features([replace(DECODE, batch=256)], DEVICE)
    many = decode_features([replace(DECODE, batch=256, query_len=8)], DEVICE)
    narrow = decode_features([replace(DECODE, batch=256, query_len=8, dtype="fp8")], DEVICE)
    assert many["slot_keys"][0] == pytest.approx(8 / 4 * few["slot_keys"][0])
    assert narrow["slot_keys"][0] == pytest.approx(8 / 3 * few["slot_keys"][0])


def test_keys_in_blocks_smaller_than_a_tile_are_gathered():
    # A tile of few rows holds 32 keys, one of more rows 64.
    blocks = [
        decode_features([replace(DECODE, block_size=size)], DEVICE)["is_gathered"][0] for size in (16, 64)
    ]
    verified = replace(DECODE, query_len=8, block_size=32)
    assert (*blocks, decode_features([verified], DEVICE)["is_gathered"][0]) == (1, 0, 1)


def test_hopper_s_latent_kernel_splits_for_whole_waves():
    latent = OpPoint(
        "mla_decode", "triton", "bf16", batch=16, query_len=1, context_len=4096, num_q_heads=128,
        num_kv_heads=1, head_dim=512, k=64,
    )  # fmt: skip
    # 32 programs of 64 heads: 4 parts of 16 tiles fill one wave of 132 SMs with 128, where 5 would need two.
    features = decode_features([latent], DEVICE)
    assert features["longest_keys"][0] == 4096 / 4
    # 128 requests fill two waves without any parts, and nothing is added up.
    whole = decode_features([replace(latent, batch=128)], DEVICE)
    assert (whole["longest_keys"][0], whole["is_split"][0]) == (4096, 0)


def test_keys_that_l2_cannot_hold_are_read_again():
    long = replace(PREFILL, query_len=4096, context_len=32768, num_q_heads=96, num_kv_heads=96)
    assert prefill_features([long], DEVICE)["reread_bytes"][0] > work(long).hbm_bytes
    # 8 KV heads of 2,304 keys are 9 MB, which stay in 50 MB of L2.
    short = replace(PREFILL, context_len=256)
    assert prefill_features([short], DEVICE)["reread_bytes"][0] < 0.01 * work(short).hbm_bytes


def test_an_image_s_patches_all_see_each_other():
    image = replace(
        PREFILL, op="attention_vision", query_len=256, num_q_heads=16, num_kv_heads=16, head_dim=64
    )
    # 16 heads of two tiles of 128 rows with all 256 keys.
    assert prefill_features([image], DEVICE)["mean_exponentials"][0] == 16 * 2 * 128 * 256


def test_libraries_fill_heads_up_to_the_next_32_dimensions():
    image = replace(PREFILL, op="attention_vision", implementation="sdpa-flash", query_len=256)
    flops = [
        prefill_features([replace(image, head_dim=dim)], DEVICE)["mean_flops"][0] for dim in (72, 80, 96)
    ]
    assert flops[0] == flops[1] == flops[2]


def test_a_search_for_the_top_k_costs_time_per_element():
    sampling = OpPoint("sampling", "triton", "bf16", m=4, n=40960)
    values = {"search_s": 5e-6}
    # 10 units of 4,096 elements at 5 us each.
    gained = price(replace(sampling, top_k=50), **values) - price(sampling, **values)
    assert gained == pytest.approx(50e-6)


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
    values = full(point)
    small = price(replace(point, **{size: 64 * factor}), **values)
    assert price(replace(point, **{size: 128 * factor}), **values) >= small * (1 - 1e-9)


@pytest.mark.parametrize("point", [GEMM, PREFILL, DECODE, NORM])
def test_a_higher_rate_never_makes_anything_slower(point):
    values = full(point)
    before = price(point, **values)
    for name, value in values.items():
        if name.endswith("_per_s"):
            assert price(point, **values | {name: 2 * value}) <= before * (1 + 1e-12), name


@pytest.mark.parametrize("point", [GEMM, PREFILL, DECODE, NORM])
def test_a_term_that_measurements_do_not_show_takes_no_time(point):
    before = price(point, **full(point))
    optional = [one for one in form_of(point.op).coefficients if one.absent is not None]
    assert optional
    for one in optional:
        without = price(point, **full(point) | {one.name: one.absent})
        assert without <= before * (1 + 1e-12) or one.unit == "exponent", one.name


def test_points_are_priced_alike_alone_and_among_others():
    points = [replace(GEMM, m=m) for m in (1, 33, 257, 4096)]
    form = form_of("gemm")
    values = {coefficient.name: coefficient.initial for coefficient in form.coefficients}
    together = form.seconds(form.features(points, DEVICE), values)
    assert together.tolist() == [price(point, **values) for point in points]


def test_every_op_with_work_has_a_form_and_every_coefficient_starts_within_its_bounds():
    for op in set(WORK) - set(PROBES):
        assert form_of(op).name in FORMS
    for form in FORMS.values():
        assert all(c.low <= c.initial <= c.high for c in form.coefficients)


def test_no_rate_may_be_fitted_beyond_what_the_device_has():
    bounds = {one.name: one.bounds(DEVICE, "fp8") for one in FORMS["gemm"].coefficients}
    assert bounds["hbm_bytes_per_s"][1] == DEVICE.hbm_bytes_per_s
    assert bounds["matrix_flops_per_s"][1] == BOOST * DEVICE.matrix_flops_per_s["fp8"]


@pytest.mark.parametrize(
    ("point", "binds"),
    [
        (replace(GEMM, m=8192, n=8192, k=8192), "power"),
        (replace(GEMM, m=1, n=28672, k=8192), "hbm"),
        (replace(GEMM, m=1, n=256, k=256), "launch"),
        (replace(PREFILL, query_len=16384), "matrix"),
        (replace(DECODE, batch=64), "hbm"),
        (replace(NORM, m=16384), "hbm"),
        (replace(NORM, m=1, n=1024), "launch"),
    ],
)
def test_what_binds_is_named(point, binds):
    assert bound(point) == binds


def test_an_unknown_op_is_answered_with_the_nearest():
    with pytest.raises(SimllmError, match="did you mean 'softmax'"):
        work(replace(NORM, op="softmx"))
