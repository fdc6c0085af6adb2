"""The prepared seconds of attention agree with the roofline over the very ops that they stand for."""

from __future__ import annotations

import pytest

from simllm.hwmodels import ops
from simllm.hwmodels.attention_cost import DecodeAttention, PrefillAttention
from simllm.hwmodels.layers import LayerOps
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.roofline import Efficiency, Roofline
from simllm.hwmodels.step import Chunk, DecodeGroup


@pytest.fixture
def roofline(h200) -> Roofline:
    return Roofline(h200, Efficiency())


@pytest.fixture
def llama(llama_8b, h200) -> LayerOps:
    return LayerOps(llama_8b, ParallelSpec(), Precision.on(h200, weight="bf16", activation="bf16", kv="bf16"))


@pytest.fixture
def deepseek(deepseek_v3, h200) -> LayerOps:
    precision = Precision.on(h200, weight="fp8", activation="bf16", kv="bf16")
    return LayerOps(deepseek_v3, ParallelSpec(tp=8), precision)


@pytest.mark.parametrize("query, context", [(1, 0), (17, 30_000), (2048, 0), (2048, 14_336)])
def test_a_chunk_takes_as_long_as_its_op_in_every_layer(llama, roofline, query, context):
    seconds, bound = PrefillAttention(llama, roofline).seconds((Chunk(query, context),))
    op = ops.prefill_attention(llama.prefill_shape(), query_len=query, context_len=context)
    timing = roofline.time(op)
    assert seconds == pytest.approx(32 * timing.busy_s)
    assert bound == timing.bound


def test_chunks_share_one_launch_so_compute_hides_memory(llama, roofline):
    attention = PrefillAttention(llama, roofline)
    compute, memory = Chunk(2048, 0), Chunk(1, 30_000)
    together = attention.seconds((compute, memory))[0]
    assert together <= attention.seconds((compute,))[0] + attention.seconds((memory,))[0]


def test_equal_chunks_may_be_given_by_their_number(llama, roofline):
    attention = PrefillAttention(llama, roofline)
    apart = attention.seconds((Chunk(100, 50), Chunk(100, 50), Chunk(100, 50)))
    assert attention.seconds((Chunk(100, 50, count=3),)) == pytest.approx(apart)


@pytest.mark.parametrize("query_len", [1, 4])
def test_decodes_take_as_long_as_their_op_in_every_layer(llama, roofline, query_len):
    groups = (DecodeGroup(query_len, 64, 64_000, 1000),)
    op = ops.decode_attention(llama.decode_shape(), sum_context=64_000, count=64, query_len=query_len)
    seconds, bound = DecodeAttention(llama, roofline).seconds(groups)
    assert seconds == pytest.approx(32 * roofline.time(op).busy_s)
    assert bound == "hbm"


def test_groups_of_decodes_add_up(llama, roofline):
    attention = DecodeAttention(llama, roofline)
    plain, drafted = DecodeGroup(1, 10, 10_000, 1000), DecodeGroup(4, 5, 9_000, 2000)
    expected = attention.seconds((plain,))[0] + attention.seconds((drafted,))[0]
    assert attention.seconds((plain, drafted))[0] == pytest.approx(expected)


def test_a_chunk_of_mla_expands_the_latents_that_it_attends_to(deepseek, roofline):
    """16 heads a rank: 2 x 512 x 16 x (128 + 128) FLOPs per cached token in 61 layers, in bf16."""
    attention = PrefillAttention(deepseek, roofline)
    shape = deepseek.prefill_shape()
    chunk = attention.seconds((Chunk(512, 4096),))[0]
    plain = 61 * roofline.time(ops.prefill_attention(shape, query_len=512, context_len=4096)).busy_s
    expanded = 61 * 4096 * 2 * 512 * 16 * 256
    assert chunk - plain == pytest.approx(expanded / (989.4e12 * 0.75), rel=1e-9)


def test_absorbed_decodes_of_deepseek_are_bound_by_the_matrix_units_without_tp(deepseek_v3, h200):
    # 128 heads: 242 FLOP per byte, more than H200's 989.4 x 0.60 / (4.8 x 0.80) = 155.
    precision = Precision.on(h200, weight="fp8", activation="bf16", kv="bf16")
    layers = LayerOps(deepseek_v3, ParallelSpec(), precision)
    assert DecodeAttention(layers, Roofline(h200, Efficiency())).rates(1).bound == "matrix"
