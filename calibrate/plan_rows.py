"""Grids of what stands between products, and the probes of memory and launches."""

from __future__ import annotations

from ..hwmodels.op_point import PROBES, OpPoint
from ..units import MIB
from .plan_shapes import attention_heads, vocab_sizes
from .stream import Stream

VECTOR_ROWS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 16384)
VECTOR_WIDTHS = (1024, 2048, 3584, 4096, 5120, 7168, 8192, 14336, 18432)
SAMPLED_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOP_KS = (0, 0, 50)
WORD_BYTES = 4
HBM_BYTES = (2048 * MIB, 256 * MIB)
# Up to the L2 of today's GPUs (H200: 50 MB, B200: 126 MB) and beyond; about as many bytes in each.
L2_BYTES = (16 * MIB, 4 * MIB, 8 * MIB, 24 * MIB, 32 * MIB, 48 * MIB, 96 * MIB)
L2_READ_BYTES = 1024 * MIB
# 32,768 CTAs of 512 threads with loads of 16 bytes: dozens of waves on any GPU; 1,024 loads of each thread.
SRAM_WORDS, SRAM_LOADS = 32768 * 512 * 4, 1024


def _vector(op: str, implementation: str, dtype: str, weight: float, count: int) -> Stream:
    def make(m: int, n: int) -> OpPoint:
        return OpPoint(op, implementation, dtype, m=m, n=n)

    return Stream(op, implementation, dtype, (VECTOR_ROWS, VECTOR_WIDTHS), make, weight, count)


def _rope(weight: float, count: int) -> Stream:
    def make(heads: tuple[int, int, int], m: int) -> OpPoint:
        num_q_heads, num_kv_heads, head_dim = heads
        return OpPoint(
            "rope", "triton", "bf16",
            m=m, num_q_heads=num_q_heads, num_kv_heads=num_kv_heads, head_dim=head_dim,
        )  # fmt: skip

    return Stream("rope", "triton", "bf16", (attention_heads(), VECTOR_ROWS), make, weight, count)


def _sampling(implementation: str, weight: float, count: int) -> Stream:
    def make(n: int, m: int, top_k: int) -> OpPoint | None:
        if top_k and implementation != "triton":
            return None
        return OpPoint("sampling", implementation, "bf16", m=m, n=n, top_k=top_k)

    axes = (vocab_sizes(), SAMPLED_ROWS, TOP_KS)
    return Stream("sampling", implementation, "bf16", axes, make, weight, count)


def row_streams() -> tuple[Stream, ...]:
    """Returns the grids, as `product_streams` does."""
    return (
        *(
            _vector(op, implementation, "bf16", 0.35, 50)
            for op in ("rms_norm", "layer_norm", "silu_mul", "softmax")
            for implementation in ("triton", "torch")
        ),
        _vector("quantize_per_token", "triton", "fp8", 0.2, 30),
        _vector("quantize_per_token", "triton", "int8", 0.15, 20),
        _vector("quantize_per_group", "triton", "fp8", 0.2, 30),
        _rope(0.25, 36),
        _sampling("triton", 0.3, 50),
        _sampling("torch", 0.2, 30),
    )


def probe_points() -> tuple[OpPoint, ...]:
    """Returns the probes, the rungs of the ladder first."""

    def probe(op: str, m: int = 0, num_bytes: int = 0) -> OpPoint:
        return OpPoint(op, "triton", "fp32", m=m, n=num_bytes // WORD_BYTES)

    hbm = [probe(op, 1, num_bytes) for num_bytes in HBM_BYTES for op in PROBES if "hbm" in op]
    l2 = [probe("probe_l2", L2_READ_BYTES // num_bytes, num_bytes) for num_bytes in L2_BYTES]
    sram = probe("probe_sram", SRAM_LOADS, SRAM_WORDS * WORD_BYTES)
    return (*hbm, *l2, sram, probe("probe_graph_gap"), probe("probe_eager_launch"))
