"""One operation as a row of a table: what `calibrate` measures and `op_model` prices.

A row says what is computed and by which kernels; its FLOPs and bytes come from `ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from ..errors import SimllmError, nearest_choice
from ..units import DTYPE_BYTES
from . import ops
from .ops import AttentionShape, Op

# Activations beside 8-bit operands or an 8-bit cache. Source: vLLM keeps hidden states and queries in bf16.
ACTIVATION_DTYPE = "bf16"
EIGHT_BIT = ("fp8", "int8")
# What the memory and the launch can do at best: read off, not fitted.
PROBES = (
    "probe_hbm_copy",
    "probe_hbm_read",
    "probe_hbm_write",
    "probe_l2",
    "probe_sram",
    "probe_graph_gap",
    "probe_eager_launch",
)
# What torch._int_mm writes: int32, as wide as fp32. Source: PyTorch, aten/src/ATen/native/cuda/Blas.cpp
INT_MM_OUT = "fp32"


@dataclass(frozen=True, slots=True)
class OpPoint:
    """One operation with its sizes; a size that the operation does not have is 0.

    implementation: whose kernels run it: `triton` (ours), `cublas`, `cudnn`, `sdpa-flash`, `sdpa-cudnn` or
    `torch`.
    dtype: of both operands of a product (of the weights in `gemm_weight_only`), of the KV cache in decode
    attention, of what quantising writes, else of the activations.
    m, n, k: rows (tokens), output features, inner size; elementwise ops have m rows of n elements.
    batch: requests, or equal chunks. query_len: new tokens of each. context_len: tokens in the cache before
    a prefill chunk; all tokens that a decode sees, its own included (the mean, if requests differ).
    max_context_len: of the longest request, 0 if all are equal.
    head_dim: of keys and values; in `mla_decode` of the latent, whose rotary part `k` counts.
    top_k: experts of a token; in `sampling` the tokens that may be drawn, 0 if all.
    kernel_size: side of a convolution's square kernel, which is its stride as well.
    skew: how unevenly experts are chosen: the i-th most popular one with weight i^-skew; 0 is evenly.
    sustained: replayed back to back for a second and more, so that the power limit sets the clock.
    """

    op: str
    implementation: str
    dtype: str
    m: int = 0
    n: int = 0
    k: int = 0
    batch: int = 0
    query_len: int = 0
    context_len: int = 0
    max_context_len: int = 0
    num_q_heads: int = 0
    num_kv_heads: int = 0
    head_dim: int = 0
    num_experts: int = 0
    top_k: int = 0
    block_size: int = 0
    kernel_size: int = 0
    skew: float = 0.0
    sustained: bool = False

    @property
    def longest_context(self) -> int:
        """Tokens of the longest request."""
        return max(self.context_len, self.max_context_len)

    @property
    def activation_dtype(self) -> str:
        """The dtype of queries and outputs."""
        return ACTIVATION_DTYPE if self.dtype in EIGHT_BIT else self.dtype

    @property
    def experts_per_token(self) -> float:
        """How many of the experts a token goes to."""
        return self.top_k


@dataclass(frozen=True, slots=True)
class ExpertRankPoint(OpPoint):
    """A grouped product on one of the ranks that share out the experts; never measured as such.

    num_experts: those of this rank. picks: how many of a token's `top_k` experts they are, on average.
    """

    picks: float = 0.0

    @classmethod
    def of(cls, point: OpPoint, picks: float) -> ExpertRankPoint:
        """Returns the row of a rank with that many picks."""
        values = {field.name: getattr(point, field.name) for field in fields(point)}
        return cls(**values, picks=picks)

    @property
    def experts_per_token(self) -> float:
        """How many of this rank's experts a token goes to, on average."""
        return self.picks


def attention_shape(point: OpPoint) -> AttentionShape:
    """Returns the heads of an attention row."""
    if point.op == "mla_decode":
        width = point.head_dim + point.k
        return ops.mla_absorbed(
            point.num_q_heads,
            kv_lora_rank=point.head_dim,
            qk_rope_head_dim=point.k,
            dtype=point.activation_dtype,
            kv_bytes_per_token=width * DTYPE_BYTES[point.dtype],
        )
    return AttentionShape.grouped_query(
        point.num_q_heads,
        point.num_kv_heads,
        point.head_dim,
        dtype=point.activation_dtype,
        kv_dtype=point.dtype,
    )


def _gemm(point: OpPoint) -> Op:
    is_int_mm = point.implementation == "cublas" and point.dtype == "int8"
    out_dtype = INT_MM_OUT if is_int_mm else point.activation_dtype
    return ops.gemm(point.m, point.n, point.k, point.dtype, out_dtype=out_dtype)


def _grouped_gemm(point: OpPoint) -> Op:
    return ops.grouped_gemm(
        point.m, point.n, point.k, point.dtype,
        num_experts=point.num_experts, top_k=point.top_k, picks=point.experts_per_token,
    )  # fmt: skip


def _prefill(point: OpPoint) -> Op:
    return ops.prefill_attention(
        attention_shape(point), query_len=point.query_len, context_len=point.context_len, count=point.batch
    )


def _decode(point: OpPoint) -> Op:
    return ops.decode_attention(
        attention_shape(point),
        sum_context=point.batch * point.context_len,
        count=point.batch,
        query_len=point.query_len,
    )


def _softmax(point: OpPoint) -> Op:
    elements = point.m * point.n
    return ops.elementwise("softmax", num_read=elements, num_written=elements, dtype=point.dtype)


def _block_scaled(point: OpPoint) -> Op:
    return ops.gemm(point.m, point.n, point.k, point.dtype, out_dtype=ACTIVATION_DTYPE)


def _weight_only(point: OpPoint) -> Op:
    return ops.gemm(point.m, point.n, point.k, ACTIVATION_DTYPE, weight_dtype=point.dtype)


def _patch_embed(point: OpPoint) -> Op:
    return ops.gemm(point.m, point.n, point.k, point.dtype, kind="patch_embed")


def _vision(point: OpPoint) -> Op:
    """`batch` images, or windows, of `query_len` patches that see each other and nothing else."""
    return ops.vision_attention(attention_shape(point), point.batch * point.query_len, point.query_len)


def _quantize(point: OpPoint) -> Op:
    """One pass: a row stays in registers between its maximum and its codes."""
    elements = point.m * point.n
    width = DTYPE_BYTES[point.dtype] / DTYPE_BYTES[ACTIVATION_DTYPE]
    return ops.elementwise(
        point.op,
        num_read=elements,
        num_written=elements * width,
        dtype=ACTIVATION_DTYPE,
        flops=3.0 * elements,
    )


def _rope(point: OpPoint) -> Op:
    return ops.rope(point.m, point.num_q_heads + point.num_kv_heads, point.head_dim, point.dtype)


def _sampling(point: OpPoint) -> Op:
    """Ours reads the logits twice, for the maximum and for the draw; passes for top-k hit L2."""
    if point.implementation != "triton":
        return ops.sampling(point.m, point.n, point.dtype)
    logits = point.m * point.n
    return ops.elementwise(
        "sampling", num_read=2 * logits, num_written=0, dtype=point.dtype, flops=10.0 * logits
    )


def _probe(point: OpPoint) -> Op:
    """Returns `m` passes over `n` 32-bit elements at the level that the probe names; copies write, too."""
    elements = point.m * point.n
    written = elements if point.op == "probe_hbm_copy" else 0
    return ops.elementwise(point.op, num_read=elements, num_written=written, dtype=point.dtype)


WORK: Mapping[str, Callable[[OpPoint], Op]] = {
    "gemm": _gemm,
    "grouped_gemm": _grouped_gemm,
    "attention_prefill": _prefill,
    "attention_decode": _decode,
    "mla_decode": _decode,
    "rms_norm": lambda point: ops.rms_norm(point.m, point.n, point.dtype),
    "layer_norm": lambda point: ops.layer_norm(point.m, point.n, point.dtype),
    "silu_mul": lambda point: ops.silu_mul(point.m, point.n, point.dtype),
    "softmax": _softmax,
    "gemm_block_scaled": _block_scaled,
    "gemm_weight_only": _weight_only,
    "patch_embed": _patch_embed,
    "attention_vision": _vision,
    "quantize_per_token": _quantize,
    "quantize_per_group": _quantize,
    "rope": _rope,
    "sampling": _sampling,
    **dict.fromkeys(PROBES, _probe),
}


def work(point: OpPoint) -> Op:
    """Returns FLOPs and bytes of a row. Raises: SimllmError for an unknown op."""
    if point.op not in WORK:
        nearest = nearest_choice(point.op, WORK)
        hint = f"one of {', '.join(WORK)}" if nearest is None else f"did you mean {nearest!r}?"
        raise SimllmError(f"op {point.op!r} is unknown; {hint}")
    return WORK[point.op](point)
