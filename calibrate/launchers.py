"""Turns a point of the plan into launches of the kernels that it names, over rotating buffers.

What an engine finds cold in L2 is cold here: weights, and keys and values (every layer has its own). What the
kernel before has just written stays: the activations of products and the rows of elementwise ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import torch
import torch.nn.functional as functional

from ..errors import CalibrationError
from ..hwmodels.op_point import OpPoint, work
from ..kernels import gemm, gemm_quantized, gemm_split_k, moe, norm, softmax
from ..kernels.attention_decode import decode_attention
from ..kernels.attention_mla_decode import mla_decode_attention
from ..kernels.attention_prefill import Chunks, prefill_attention
from ..kernels.elementwise import silu_mul
from .buffers import Pools, num_copies

Launch = Callable[[], object]
# Rows up to which a weight is streamed by the kernel that splits k; beyond, whole tiles fill the GPU.
SPLIT_K_ROWS = 64
VECTOR_LAUNCHES = 20
MLA_SCALE = (128 + 64) ** -0.5  # Source: DeepSeek-V3, arXiv 2412.19437: 128 + 64 dimensions a head
_SMALLEST_TILE_ROWS, _LARGEST_TILE_ROWS = 16, 128


def make_launches(point: OpPoint, pools: Pools) -> Sequence[Launch]:
    """Returns the launches of one point, each over other buffers.

    Raises: CalibrationError for an op and implementation that do not go together.
    """
    maker = _MAKERS.get((point.op, point.implementation))
    if maker is None:
        raise CalibrationError(f"{point.op} has no implementation {point.implementation!r} to measure")
    return maker(point, pools)


def _unit_scale() -> torch.Tensor:
    return torch.ones((), device="cuda")


def _gemm_operands(point: OpPoint, pools: Pools) -> tuple[torch.Tensor, list[torch.Tensor]]:
    a = pools.take(point.dtype, point.m, point.k)
    copies = num_copies(point.n * point.k * a.itemsize)
    return a, [pools.take(point.dtype, point.n, point.k) for _ in range(copies)]


def _cublas_gemm(point: OpPoint, pools: Pools) -> list[Launch]:
    """fp8: per-tensor scales with fast accumulation, as vLLM calls it; int8 gives int32."""
    a, weights = _gemm_operands(point, pools)
    if point.dtype == "fp8":
        scale = _unit_scale()
        return [
            lambda b=b: torch._scaled_mm(
                a, b.t(), scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True
            )
            for b in weights
        ]
    if point.dtype == "int8":
        return [lambda b=b: torch._int_mm(a, b.t()) for b in weights]
    return [lambda b=b: torch.mm(a, b.t()) for b in weights]


def _triton_gemm(point: OpPoint, pools: Pools) -> list[Launch]:
    a, weights = _gemm_operands(point, pools)
    if point.dtype in ("fp8", "int8"):
        rows, columns = (torch.ones(size, device="cuda") for size in (point.m, point.n))
        return [lambda b=b: gemm_quantized.scaled_matmul(a, b, rows, columns) for b in weights]
    multiply = gemm_split_k.matmul_split_k if point.m <= SPLIT_K_ROWS else gemm.matmul
    return [lambda b=b: multiply(a, b) for b in weights]


def _block_tables(point: OpPoint, copies: int) -> tuple[list[torch.Tensor], torch.Tensor, int]:
    """Returns tables of distinct random blocks, the contexts (int32) and the number of blocks.

    One request has the longest context, the others share what is left of the sum.
    """
    longest = point.longest_context
    contexts = [point.context_len] * point.batch
    if longest > point.context_len:
        rest = point.batch * point.context_len - longest
        contexts = [longest, *[max(1, rest // (point.batch - 1))] * (point.batch - 1)]
    width = ceil(longest / point.block_size)
    needed = sum(ceil(context / point.block_size) for context in contexts)
    tables = []
    for copy in range(copies):
        table = torch.zeros((point.batch, width), dtype=torch.int32)
        order = torch.randperm(needed, dtype=torch.int32) + copy * needed
        start = 0
        for request, context in enumerate(contexts):
            used = ceil(context / point.block_size)
            table[request, :used] = order[start : start + used]
            start += used
        tables.append(table)
    stacked = torch.stack(tables).cuda()
    return list(stacked), torch.tensor(contexts, dtype=torch.int32, device="cuda"), copies * needed


def _triton_decode(point: OpPoint, pools: Pools) -> list[Launch]:
    copies = num_copies(work(point).hbm_bytes)
    tables, contexts, num_blocks = _block_tables(point, copies)
    cache_shape = (num_blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.activation_dtype, point.batch, point.query_len, point.num_q_heads, point.head_dim)
    scale = torch.ones(point.num_kv_heads, device="cuda") if point.dtype in ("fp8", "int8") else None
    return [
        lambda table=table: decode_attention(
            q, k, v, table, contexts, max_context_len=point.longest_context, k_scale=scale, v_scale=scale
        )
        for table in tables
    ]


def _triton_mla(point: OpPoint, pools: Pools) -> list[Launch]:
    copies = num_copies(work(point).hbm_bytes)
    tables, contexts, num_blocks = _block_tables(point, copies)
    width = point.head_dim + point.k
    cache = pools.take(point.dtype, num_blocks, point.block_size, width)
    q = pools.take(point.activation_dtype, point.batch, point.num_q_heads, width)
    return [
        lambda table=table: mla_decode_attention(
            q, cache, table, contexts, latent_dim=point.head_dim, max_context_len=point.longest_context,
            scale=MLA_SCALE,
        )
        for table in tables
    ]  # fmt: skip


def _triton_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    keys = point.context_len + point.query_len
    width = ceil(keys / point.block_size)
    blocks = point.batch * width
    copies = num_copies(2.0 * blocks * point.block_size * point.num_kv_heads * point.head_dim * 2)
    cache_shape = (copies * blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.dtype, point.batch * point.query_len, point.num_q_heads, point.head_dim)
    lens = [point.query_len] * point.batch, [keys] * point.batch
    tables = (torch.randperm(blocks, dtype=torch.int32) + copy * blocks for copy in range(copies))
    chunks = [Chunks.of(*lens, "cuda", table.view(point.batch, width).cuda()) for table in tables]
    return [lambda chunk=chunk: prefill_attention(q, k, v, chunk) for chunk in chunks]


def _sdpa_operands(point: OpPoint, pools: Pools, keys: int) -> tuple[torch.Tensor, list[tuple[torch.Tensor, ...]]]:
    """Returns q and rotating (k, v), each (batch, heads, tokens, head_dim) as views of token-major rows."""
    q = pools.take(point.dtype, point.batch, point.query_len, point.num_q_heads, point.head_dim).transpose(1, 2)
    kv_shape = (point.batch, keys, point.num_kv_heads, point.head_dim)
    copies = num_copies(4.0 * point.batch * keys * point.num_kv_heads * point.head_dim)
    pairs = [tuple(pools.take(point.dtype, *kv_shape).transpose(1, 2) for _ in range(2)) for _ in range(copies)]
    return q, pairs


def _flash_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    """torch's FlashAttention-2; its causal mask is aligned to the last key, as a chunk after a context needs."""
    q, pairs = _sdpa_operands(point, pools, point.context_len + point.query_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [lambda k=k, v=v: flash(q, k, v, 0.0, True) for k, v in pairs]


def _cudnn_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    q, pairs = _sdpa_operands(point, pools, point.query_len)

    def attend(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return [lambda k=k, v=v: attend(k, v) for k, v in pairs]


def _flash_decode(point: OpPoint, pools: Pools) -> list[Launch]:
    """torch's FlashAttention-2 with one query token and contiguous keys: no paging, equal contexts."""
    q, pairs = _sdpa_operands(point, pools, point.context_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [lambda k=k, v=v: flash(q, k, v, 0.0, False) for k, v in pairs]


def _triton_moe(point: OpPoint, pools: Pools) -> list[Launch]:
    """Random routing; the tile has about as many rows as an expert has tokens."""
    x = pools.take(point.dtype, point.m, point.k)
    shape = (point.num_experts, point.n, point.k)
    copies = num_copies(work(point).hbm_bytes)
    logits = torch.randn(point.m, point.num_experts, device="cuda")
    _, experts = moe.route(logits, point.top_k)
    rows = point.m * point.top_k // point.num_experts
    tile_rows = min(_LARGEST_TILE_ROWS, max(_SMALLEST_TILE_ROWS, 1 << max(0, rows - 1).bit_length()))
    plan = moe.plan_tiles(experts, point.num_experts, tile_rows)
    weights = [pools.take(point.dtype, *shape) for _ in range(copies)]
    return [lambda w=w: moe.grouped_matmul(x, w, plan) for w in weights]


def _vector(point: OpPoint, pools: Pools) -> list[Launch]:
    rows = (point.m, point.n)
    x, residual = (pools.take(point.dtype, *rows) for _ in range(2))
    weight, bias = (pools.take(point.dtype, point.n) for _ in range(2))
    gate_up = pools.take(point.dtype, point.m, 2 * point.n)

    def torch_rms_norm() -> object:
        total = x + residual
        return functional.rms_norm(total, rows[1:], weight), total

    def torch_layer_norm() -> object:
        total = x + residual
        return functional.layer_norm(total, rows[1:], weight, bias), total

    launches: dict[tuple[str, str], Launch] = {
        ("rms_norm", "triton"): lambda: norm.rms_norm(x, weight, residual=residual),
        ("layer_norm", "triton"): lambda: norm.layer_norm(x, weight, bias, residual=residual),
        ("silu_mul", "triton"): lambda: silu_mul(gate_up),
        ("softmax", "triton"): lambda: softmax.softmax(x),
        ("rms_norm", "torch"): torch_rms_norm,
        ("layer_norm", "torch"): torch_layer_norm,
        ("silu_mul", "torch"): lambda: functional.silu(gate_up[:, : point.n]) * gate_up[:, point.n :],
        ("softmax", "torch"): lambda: x.softmax(-1),
    }
    return [launches[point.op, point.implementation]] * VECTOR_LAUNCHES


_MAKERS: dict[tuple[str, str], Callable[[OpPoint, Pools], Sequence[Launch]]] = {
    ("gemm", "cublas"): _cublas_gemm,
    ("gemm", "triton"): _triton_gemm,
    ("attention_decode", "triton"): _triton_decode,
    ("attention_decode", "sdpa-flash"): _flash_decode,
    ("mla_decode", "triton"): _triton_mla,
    ("attention_prefill", "triton"): _triton_prefill,
    ("attention_prefill", "sdpa-flash"): _flash_prefill,
    ("attention_prefill", "sdpa-cudnn"): _cudnn_prefill,
    ("grouped_gemm", "triton"): _triton_moe,
    **{
        (op, implementation): _vector
        for op in ("rms_norm", "layer_norm", "silu_mul", "softmax")
        for implementation in ("triton", "torch")
    },
}
