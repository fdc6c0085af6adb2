"""Laws of the plan: no duplicates, every stream early, any prefix thins all streams alike."""

from __future__ import annotations

from collections import Counter

import pytest

from simllm.calibrate.plan import MAX_POINT_BYTES, MAX_POINT_FLOPS, make_plan, streams
from simllm.calibrate.plan_shapes import attention_heads, expert_shapes, gemm_shapes
from simllm.errors import CalibrationError
from simllm.hwmodels.op_point import work

PLAN = make_plan()


def stream_of(point):
    return point.op, point.implementation, point.dtype


def test_no_point_is_measured_twice():
    assert len(set(PLAN)) == len(PLAN)


def test_the_plan_is_the_same_every_time():
    assert make_plan() == PLAN


def test_no_point_is_larger_than_what_one_measurement_may_cost():
    for point in PLAN:
        assert work(point).flops <= MAX_POINT_FLOPS
        assert work(point).hbm_bytes <= MAX_POINT_BYTES


def test_a_short_budget_takes_points_of_every_stream():
    first = Counter(stream_of(point) for point in PLAN[:200])
    assert set(first) == {(stream.op, stream.implementation, stream.dtype) for stream in streams()}


def test_a_prefix_holds_the_streams_in_proportion_to_their_weights():
    counts = Counter(stream_of(point) for point in PLAN[:600])
    total = sum(stream.weight for stream in streams())
    for stream in streams():
        expected = 600 * stream.weight / total
        assert abs(counts[stream.op, stream.implementation, stream.dtype] - expected) <= 1 + 0.1 * expected


def test_products_cover_one_row_to_sixteen_thousand_in_every_decade():
    rows = [point.m for point in PLAN[:600] if point.op == "gemm"]
    assert min(rows) == 1
    assert max(rows) == 16384
    assert all(any(low <= m < 4 * low for m in rows) for low in (1, 4, 16, 64, 256, 1024, 4096))


def test_decodes_include_ragged_batches_and_several_query_tokens():
    decodes = [point for point in PLAN if stream_of(point) == ("attention_decode", "triton", "bf16")]
    assert any(point.max_context_len > point.context_len for point in decodes)
    assert any(point.query_len == 8 for point in decodes)


def test_shapes_are_those_of_the_shipped_models():
    # Llama-3.1-8B on one GPU: (32 + 2 * 8) * 128 = 6,144 rows of qkv, 2 * 14,336 of gate and up.
    assert {(6144, 4096), (28672, 4096), (4096, 14336)} <= set(gemm_shapes())
    assert (32, 8, 128) in attention_heads()
    # Mixtral: 8 experts of 14,336, two per token, whole and halved by TP 2.
    assert {(28672, 4096, 8, 2), (14336, 4096, 8, 2)} <= set(expert_shapes())


def test_a_plan_of_some_ops_holds_only_those():
    assert {point.op for point in make_plan(["softmax", "rms_norm"])} == {"softmax", "rms_norm"}
    assert {point.implementation for point in make_plan(["gemm"], ["cublas"])} == {"cublas"}


def test_an_unknown_op_is_answered_with_the_nearest():
    with pytest.raises(CalibrationError, match="did you mean 'grouped_gemm'"):
        make_plan(["grouped_gem"])
