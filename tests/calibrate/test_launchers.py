"""Every op and implementation of the plan can be launched: tiny sizes, on the CPU where there is no GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

from simllm.calibrate.buffers import Pools
from simllm.calibrate.launchers import can_launch, make_alternatives
from simllm.calibrate.launchers.experts import choice_scores
from simllm.calibrate.plan import make_plan
from simllm.errors import CalibrationError
from simllm.hwmodels.op_point import OpPoint

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {"num_q_heads": 4, "num_kv_heads": 2, "head_dim": 16}
SAME_HEADS = {"num_q_heads": 2, "num_kv_heads": 2, "head_dim": 16}

POINTS = (
    OpPoint("gemm", "triton", "fp16", m=40, n=32, k=64),
    OpPoint("gemm", "triton", "int8", m=16, n=32, k=128),
    OpPoint("gemm", "cublas", "fp16", m=8, n=32, k=64),
    OpPoint("gemm_block_scaled", "triton", "fp8", m=8, n=128, k=128),
    OpPoint("gemm_weight_only", "triton", "int8", m=4, n=32, k=128),
    OpPoint("gemm_weight_only", "triton", "int4", m=4, n=32, k=128),
    OpPoint("grouped_gemm", "triton", "fp16", m=6, n=32, k=64, num_experts=4, top_k=2, skew=1.0),
    OpPoint("attention_decode", "triton", "fp16", batch=3, query_len=1, context_len=40, block_size=16,
            max_context_len=80, **HEADS),
    OpPoint("attention_decode", "triton", "fp8", batch=2, query_len=2, context_len=40,
            block_size=16, **HEADS),
    OpPoint("attention_prefill", "triton", "fp16", batch=2, query_len=20, context_len=12,
            block_size=16, **HEADS),
    OpPoint("attention_vision", "triton", "fp16", batch=2, query_len=24, **SAME_HEADS),
    OpPoint("mla_decode", "triton", "fp16", batch=2, query_len=1, context_len=40, block_size=16,
            num_q_heads=16, num_kv_heads=1, head_dim=64, k=16),
    OpPoint("patch_embed", "triton", "fp16", m=10, n=32, k=48, kernel_size=4),
    OpPoint("patch_embed", "cudnn", "fp16", m=10, n=32, k=48, kernel_size=4),
    OpPoint("rms_norm", "triton", "fp16", m=4, n=64),
    OpPoint("layer_norm", "torch", "fp16", m=4, n=64),
    OpPoint("silu_mul", "triton", "fp16", m=4, n=64),
    OpPoint("softmax", "torch", "fp16", m=4, n=64),
    OpPoint("quantize_per_token", "triton", "int8", m=4, n=128),
    OpPoint("quantize_per_group", "triton", "fp8", m=4, n=128),
    OpPoint("rope", "triton", "fp16", m=3, **HEADS),
    OpPoint("sampling", "triton", "fp16", m=2, n=200, top_k=5),
    OpPoint("sampling", "torch", "fp16", m=2, n=200),
    OpPoint("probe_hbm_copy", "triton", "fp32", m=1, n=16384),
    OpPoint("probe_hbm_read", "triton", "fp32", m=1, n=16384),
    OpPoint("probe_hbm_write", "triton", "fp32", m=1, n=16384),
    OpPoint("probe_l2", "triton", "fp32", m=2, n=16384),
    OpPoint("probe_graph_gap", "triton", "fp32"),
)  # fmt: skip


@pytest.fixture(scope="module")
def pools() -> Pools:
    return Pools(2**24, DEVICE)


@pytest.mark.parametrize(
    "point", POINTS, ids=lambda point: f"{point.op}-{point.implementation}-{point.dtype}"
)
def test_a_tiny_point_of_every_op_launches(point: OpPoint, pools: Pools) -> None:
    alternatives = make_alternatives(point, pools)
    for launches in (alternatives[0], alternatives[-1]):
        launches[0]()
    assert all(launches for launches in alternatives)


def test_every_op_of_the_plan_has_a_launcher() -> None:
    kinds = {(point.op, point.implementation) for point in make_plan()}
    assert [kind for kind in kinds if not can_launch(*kind)] == []


def test_an_op_and_a_backend_that_do_not_go_together_are_named(pools: Pools) -> None:
    with pytest.raises(CalibrationError, match="rope has no implementation 'cublas'"):
        make_alternatives(OpPoint("rope", "cublas", "bf16", m=1), pools)


def test_a_pool_hands_out_other_memory_each_time_until_it_starts_over() -> None:
    pools = Pools(8 * 1024, DEVICE)
    starts = [pools.take("int8", 3000).data_ptr() for _ in range(4)]
    # 8,192 elements in strides of 3,072: two fit, the third starts over.
    assert starts[0] != starts[1]
    assert starts[2:] == starts[:2]


@pytest.mark.parametrize(("skew", "low", "high"), [(0.0, 0.9, 1.1), (1.0, 4.5, 5.5)])
def test_experts_are_chosen_by_their_popularity(skew: float, low: float, high: float) -> None:
    torch.manual_seed(0)
    first_choices = choice_scores(20_000, 16, skew, torch.device(DEVICE)).argmax(-1)
    # One of 16 by weight 1/i: the most popular one gets 16 / H(16) = 16 / 3.381 = 4.73 times the mean.
    assert low < float((first_choices == 0).float().mean()) * 16 < high
