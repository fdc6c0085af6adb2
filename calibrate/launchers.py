"""Turns a point of the plan into launches of the kernels that it names, over rotating buffers.

What an engine finds cold in L2 is cold here: weights, and keys and values (every layer has its own). What the
kernel before has just written stays: the activations of products and the rows of elementwise ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any

import torch
import torch.nn.functional as functional

from ..errors import CalibrationError
from ..hwmodels.op_features import LEAST_TILED_ROWS, MOST_STREAMING_ROWS
from ..hwmodels.op_point import EIGHT_BIT, OpPoint, work
from ..kernels import gemm, gemm_quantized, gemm_split_k, moe, norm, softmax
from ..kernels.attention_decode import decode_attention
from ..kernels.attention_mla_decode import mla_decode_attention
from ..kernels.attention_prefill import Chunks, prefill_attention
from ..kernels.elementwise import silu_mul
from ..kernels.tuning import Config
from .buffers import Pools, num_copies

Launch = Callable[[], object]
VECTOR_LAUNCHES = 20
MLA_SCALE = (128 + 64) ** -0.5  # Source: DeepSeek-V3, arXiv 2412.19437: 128 + 64 dimensions a head
_SMALLEST_TILE_ROWS, _LARGEST_TILE_ROWS = 16, 128


def make_alternatives(point: OpPoint, pools: Pools) -> Sequence[Sequence[Launch]]:
    """Returns the ways to run one point, of which the fastest counts: its launches, each over other buffers.

    Only our own products have several, as tuning would choose among them; libraries choose by themselves.
    Raises: CalibrationError for an op and implementation that do not go together.
    """
    maker = _MAKERS.get((point.op, point.implementation))
    if maker is None:
        raise CalibrationError(f"{point.op} has no implementation {point.implementation!r} to measure")
    made = maker(point, pools)
    return [made] if callable(made[0]) else made


def _unit_scale() -> torch.Tensor:
    return torch.ones((), device="cuda")


def _gemm_operands(point: OpPoint, pools: Pools) -> tuple[torch.Tensor, list[torch.Tensor]]:
    a = pools.take(point.dtype, point.m, point.k)
    copies = num_copies(point.n * point.k * a.itemsize)
    return a, [pools.take(point.dtype, point.n, point.k) for _ in range(copies)]


def _cublas_gemm(point: OpPoint, pools: Pools) -> list[Launch]:
    """fp8: per-tensor scales with fast accumulation, as vLLM calls it; int8 gives int32."""
    a, weights = _gemm_operands(point, pools)
    multiply: Callable[..., object] = torch._int_mm if point.dtype == "int8" else torch.mm
    if point.dtype == "fp8":
        scale = _unit_scale()
        multiply = partial(
            torch._scaled_mm, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return [partial(multiply, a, b.t()) for b in weights]


def _triton_gemm(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """One alternative per tile: whole tiles over TMA, and for few rows the kernel that splits k."""
    a, weights = _gemm_operands(point, pools)
    configs = {config_tile(config): config for config in gemm.candidates(a.dtype) if is_plain(config)}
    tiled = (None, *configs.values())
    if point.dtype in EIGHT_BIT:
        scales = [torch.ones(size, device="cuda") for size in (point.m, point.n)]
        return [
            [partial(gemm_quantized.scaled_matmul, a, b, *scales, config=config) for b in weights]
            for config in tiled
        ]
    ways: list[list[Launch]] = []
    if point.m >= LEAST_TILED_ROWS:
        ways += [[partial(gemm.matmul, a, b, config=config) for b in weights] for config in tiled]
    if point.m <= MOST_STREAMING_ROWS:
        splitting = [config for config in gemm_split_k.candidates(point.m) if is_tried(config)]
        ways += [
            [partial(gemm_split_k.matmul_split_k, a, b, config=config) for b in weights]
            for config in (None, *splitting)
        ]
    return ways


def config_tile(config: Config) -> tuple[int, int, int]:
    """Returns rows, columns and CTAs per SM of a configuration."""
    return int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]), config.ctas_per_sm


def is_plain(config: Config) -> bool:
    """Returns whether a configuration is the one tried of its tile; the others differ by little."""
    return bool(config.meta["FLATTEN"] and config.meta["SPLIT_STORE"]) and config.meta["GROUP_M"] == 8


def is_tried(config: Config) -> bool:
    """Returns whether a configuration of the split-k kernel is tried: narrow and wide, whole and split."""
    meta = config.meta
    return (
        config.num_stages == 4
        and meta["BLOCK_K"] == 128
        and meta["BLOCK_N"] in (32, 128)
        and meta["SPLITS"] in (1, 4)
    )


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
    tables, contexts, num_blocks = _block_tables(point, num_copies(work(point).hbm_bytes))
    cache_shape = (num_blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.activation_dtype, point.batch, point.query_len, point.num_q_heads, point.head_dim)
    scale = torch.ones(point.num_kv_heads, device="cuda") if point.dtype in EIGHT_BIT else None
    attend = partial(decode_attention, max_context_len=point.longest_context, k_scale=scale, v_scale=scale)
    return [partial(attend, q, k, v, table, contexts) for table in tables]


def _triton_mla(point: OpPoint, pools: Pools) -> list[Launch]:
    tables, contexts, num_blocks = _block_tables(point, num_copies(work(point).hbm_bytes))
    width = point.head_dim + point.k
    cache = pools.take(point.dtype, num_blocks, point.block_size, width)
    q = pools.take(point.activation_dtype, point.batch, point.num_q_heads, width)
    attend = partial(
        mla_decode_attention,
        latent_dim=point.head_dim,
        max_context_len=point.longest_context,
        scale=MLA_SCALE,
    )
    return [partial(attend, q, cache, table, contexts) for table in tables]


def _triton_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    keys = point.context_len + point.query_len
    width = ceil(keys / point.block_size)
    blocks = point.batch * width
    copies = num_copies(4.0 * blocks * point.block_size * point.num_kv_heads * point.head_dim)
    cache_shape = (copies * blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.dtype, point.batch * point.query_len, point.num_q_heads, point.head_dim)
    lens = [point.query_len] * point.batch, [keys] * point.batch
    tables = (torch.randperm(blocks, dtype=torch.int32) + copy * blocks for copy in range(copies))
    chunks = [Chunks.of(*lens, "cuda", table.view(point.batch, width).cuda()) for table in tables]
    return [partial(prefill_attention, q, k, v, chunk) for chunk in chunks]


def _sdpa_operands(
    point: OpPoint, pools: Pools, keys: int
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, ...]]]:
    """Returns q and rotating (k, v), each (batch, heads, tokens, head_dim) as views of token-major rows."""
    q = pools.take(point.dtype, point.batch, point.query_len, point.num_q_heads, point.head_dim).transpose(
        1, 2
    )
    kv_shape = (point.batch, keys, point.num_kv_heads, point.head_dim)
    copies = num_copies(4.0 * point.batch * keys * point.num_kv_heads * point.head_dim)
    pairs = [
        tuple(pools.take(point.dtype, *kv_shape).transpose(1, 2) for _ in range(2)) for _ in range(copies)
    ]
    return q, pairs


def _flash_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    """torch's FlashAttention-2; its causal mask ends at the last key, as chunks need."""
    q, pairs = _sdpa_operands(point, pools, point.context_len + point.query_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [partial(flash, q, k, v, 0.0, True) for k, v in pairs]


def _cudnn_prefill(point: OpPoint, pools: Pools) -> list[Launch]:
    q, pairs = _sdpa_operands(point, pools, point.query_len)

    def attend(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return [partial(attend, k, v) for k, v in pairs]


def _flash_decode(point: OpPoint, pools: Pools) -> list[Launch]:
    """torch's FlashAttention-2 with one query token and contiguous keys: no paging, equal contexts."""
    q, pairs = _sdpa_operands(point, pools, point.context_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [partial(flash, q, k, v, 0.0, False) for k, v in pairs]


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
    return [partial(moe.grouped_matmul, x, w, plan) for w in weights]


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


_MAKERS: dict[tuple[str, str], Callable[[OpPoint, Pools], Any]] = {
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
