"""Laws of the plan: no duplicates, every stream early, any prefix thins all streams alike."""

from __future__ import annotations

from collections import Counter

import pytest

from simllm.calibrate.plan import make_plan, streams
from simllm.calibrate.plan_shapes import (
    attention_heads,
    expert_shapes,
    gemm_shapes,
    patch_shapes,
    vision_heads,
    vision_matrices,
)
from simllm.calibrate.stream import MAX_POINT_BYTES, MAX_POINT_FLOPS
from simllm.errors import CalibrationError
from simllm.hwmodels.op_point import PROBES, work

PLAN = make_plan()


def stream_of(point):
    return point.op, point.implementation, point.dtype


def test_no_point_is_measured_twice():
    assert len(set(PLAN)) == len(PLAN)


def test_the_plan_is_the_same_every_time():
    assert make_plan() == PLAN


def test_no_point_is_larger_than_what_one_measurement_may_cost():
    for point in (point for point in PLAN if point.op not in PROBES):
        assert work(point).flops <= MAX_POINT_FLOPS
        assert work(point).hbm_bytes <= MAX_POINT_BYTES


def test_the_probes_come_first():
    num_probes = sum(point.op in PROBES for point in PLAN)
    assert {point.op for point in PLAN[:num_probes]} == set(PROBES)


def test_a_short_budget_takes_points_of_every_stream():
    first = {stream_of(point) for point in PLAN[:400]}
    assert first >= {(stream.op, stream.implementation, stream.dtype) for stream in streams()}


def test_a_prefix_holds_the_streams_in_proportion_to_their_weights():
    prefix = [point for point in PLAN if point.op not in PROBES][:600]
    counts = Counter(stream_of(point) for point in prefix)
    weights = Counter()
    for stream in streams():
        weights[stream.op, stream.implementation, stream.dtype] += stream.weight
    for key, weight in weights.items():
        expected = 600 * weight / weights.total()
        # Streams that share a key (a skewed mixture beside an even one) round one by one.
        assert abs(counts[key] - expected) <= 3 + 0.1 * expected, key


def test_products_cover_one_row_to_sixteen_thousand_in_every_decade():
    rows = [point.m for point in PLAN[:600] if point.op == "gemm"]
    assert min(rows) == 1
    assert max(rows) == 16384
    assert all(any(low <= m < 4 * low for m in rows) for low in (1, 4, 16, 64, 256, 1024, 4096))


def test_decodes_include_ragged_batches_and_several_query_tokens():
    decodes = [point for point in PLAN if stream_of(point) == ("attention_decode", "triton", "bf16")]
    assert any(point.max_context_len == 16 * point.context_len for point in decodes)
    assert any(point.query_len == 8 for point in decodes)


def test_the_contexts_of_a_ragged_batch_can_add_up_to_their_mean():
    for point in PLAN:
        assert point.max_context_len <= point.batch * point.context_len


def test_mixtures_are_chosen_evenly_and_with_favourites():
    skews = Counter(point.skew for point in PLAN if point.op == "grouped_gemm")
    assert skews[0.0] > 100
    assert all(skews[skew] >= 10 for skew in (0.3, 0.6, 1.0, 1.5))


def test_some_products_run_until_the_power_limit_has_set_the_clock():
    sustained = [stream_of(point) for point in PLAN if point.sustained]
    assert {("gemm", "cublas", "bf16"), ("gemm", "cublas", "fp8"), ("gemm", "triton", "bf16")} <= set(
        sustained
    )
    assert len(sustained) < 25  # each takes more than two seconds


def test_a_vision_tower_has_its_patches_heads_and_matrices():
    # Qwen2.5-VL: 3 colours of 2 frames in squares of 14: 1,176 pixels to 1,280 channels; 16 heads of 80.
    assert (1280, 1176, 14) in patch_shapes()
    assert (16, 80) in vision_heads()
    assert (3 * 1280, 1280) in vision_matrices()
    assert any(
        point.query_len == 64 and point.batch == 256 for point in PLAN if point.op == "attention_vision"
    )


def test_shapes_are_those_of_the_shipped_models():
    # Llama-3.1-8B on one GPU: (32 + 2 * 8) * 128 = 6,144 rows of qkv, 2 * 14,336 of gate and up.
    assert {(6144, 4096), (28672, 4096), (4096, 14336)} <= set(gemm_shapes())
    assert (32, 8, 128) in attention_heads()
    # Mixtral: 8 experts of 14,336, two per token, whole and halved by TP 2.
    assert {(28672, 4096, 8, 2), (14336, 4096, 8, 2)} <= set(expert_shapes())


def test_a_plan_of_some_ops_holds_only_those():
    assert {point.op for point in make_plan(["softmax", "rms_norm"])} == {"softmax", "rms_norm"}
    assert {point.implementation for point in make_plan(["gemm"], ["cublas"])} == {"cublas"}


def test_a_family_of_ops_is_named_by_its_first_word():
    ops = {point.op for point in make_plan(["attention", "probe"])}
    assert ops == {"attention_prefill", "attention_decode", "attention_vision", *PROBES}


def test_an_unknown_op_is_answered_with_the_nearest():
    with pytest.raises(
        CalibrationError, match="op 'grouped_gem' is not measured; did you mean 'grouped_gemm'"
    ):
        make_plan(["grouped_gem"])
    with pytest.raises(CalibrationError, match="backend 'cublass' is not measured; did you mean 'cublas'"):
        make_plan(["gemm"], ["cublass"])
