"""Paged decode attention: a KV head is read once for its group of query heads, contexts are split.

Shapes: q, out (num_requests, query_len, num_q_heads, head_dim), query_len 1 .. 8 (more than 1 verifies draft
tokens); k_cache, v_cache (num_blocks, block_size, num_kv_heads, head_dim) in bf16, fp16, fp8 e4m3 or int8,
with one scale per KV head (num_kv_heads,) where they are quantised; block_table int32 (num_requests,
max_blocks); context_lens int32 (num_requests,), the query tokens included. Query token i sees keys 0 ..
context_len - query_len + i.
Papers: PagedAttention, arXiv 2309.06180; flash decoding (crfm.stanford.edu/2023/10/12/flashdecoding.html):
splits give partial outputs with their log-sum-exp, a second launch adds them up.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from .attention_prefill import LOG2_E, attend, gather_pages
from .attention_splits import reduce_splits
from .gemm import DTYPE_NAMES
from .tuning import Config, num_sms, tuned_config

MIN_ROWS = 16  # rows of the smallest matrix instruction, m16n8k16 (PTX ISA, mma)
MAX_SPLITS = 128


@triton.jit
def _load_tile(
    desc, ptr, table_ptr, start, context_len, kv_head,
    NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    USE_TMA: tl.constexpr,
):  # fmt: skip
    if USE_TMA:
        row = tl.load(table_ptr + start // BLOCK_SIZE) * BLOCK_SIZE + start % BLOCK_SIZE
        return desc.load([row, kv_head * HEAD_DIM])
    else:  # noqa: RET505 (Triton compiles code after a return, with operands that are not there)
        positions = start + tl.arange(0, BLOCK_N)
        # A table need not be wider than the context: what lies beyond is read from some block and masked.
        pages = tl.load(table_ptr + positions // BLOCK_SIZE, mask=positions < context_len, other=0)
        rows = pages.to(tl.int64) * BLOCK_SIZE + positions % BLOCK_SIZE
        columns = kv_head * HEAD_DIM + tl.arange(0, HEAD_DIM)
        return tl.load(ptr + rows[:, None] * (NUM_KV_HEADS * HEAD_DIM) + columns[None, :])


@triton.jit
def _decode_kernel(
    q_ptr, k_desc, v_desc, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, table_ptr, context_lens_ptr,
    partial_ptr, lse_ptr,
    # dimensions
    table_stride, scale,
    # shape of the heads
    QUERY_LEN: tl.constexpr, NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, IS_QUANTIZED: tl.constexpr, ROWS: tl.constexpr, DOT_DTYPE: tl.constexpr,
    # meta-parameters
    BLOCK_N: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """Grid (num_kv_heads, num_splits, num_requests); row r is token r // group, head r % group.

    partial (num_requests, num_splits, query_len, num_q_heads, head_dim), lse the same without head_dim, base
    2.
    """
    kv_head = tl.program_id(0)
    split = tl.program_id(1)
    request = tl.program_id(2)
    GROUP: tl.constexpr = NUM_Q_HEADS // NUM_KV_HEADS
    context_len = tl.load(context_lens_ptr + request)
    tiles_per_split = tl.cdiv(tl.cdiv(context_len, BLOCK_N), tl.num_programs(1))
    first_key = split * tiles_per_split * BLOCK_N
    last_key = tl.minimum(first_key + tiles_per_split * BLOCK_N, context_len)
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, HEAD_DIM)
    token = rows // GROUP
    head = kv_head * GROUP + rows % GROUP
    is_row = rows < QUERY_LEN * GROUP
    q_rows = (request * QUERY_LEN + token) * NUM_Q_HEADS + head
    q = tl.load(q_ptr + q_rows[:, None] * HEAD_DIM + columns[None, :], mask=is_row[:, None], other=0.0).to(
        DOT_DTYPE
    )
    if IS_QUANTIZED:
        scale *= tl.load(k_scale_ptr + kv_head)
    last_seen = context_len - QUERY_LEN + token
    table_ptr += request * table_stride
    acc = tl.zeros((ROWS, HEAD_DIM), dtype=tl.float32)
    row_sum = tl.zeros((ROWS,), dtype=tl.float32)
    row_max = tl.full((ROWS,), -1.0e30, dtype=tl.float32)
    for start in tl.range(first_key, last_key, BLOCK_N):
        k = _load_tile(
            k_desc, k_ptr, table_ptr, start, context_len, kv_head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        scores = tl.dot(q, k.to(DOT_DTYPE).T) * scale
        keys = start + tl.arange(0, BLOCK_N)
        is_seen = keys[None, :] <= last_seen[:, None]
        scores = tl.where(is_seen, scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # A split may hold no key that an early draft token sees: its probabilities are zeroed, not exp2(0).
        p = tl.where(is_seen, tl.exp2(scores - new_max[:, None]), 0.0)
        correction = tl.exp2(row_max - new_max)
        row_sum = row_sum * correction + tl.sum(p, 1)
        v = _load_tile(
            v_desc, v_ptr, table_ptr, start, context_len, kv_head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        acc = tl.dot(p.to(DOT_DTYPE), v.to(DOT_DTYPE), acc * correction[:, None])
        row_max = new_max
    if IS_QUANTIZED:
        acc *= tl.load(v_scale_ptr + kv_head)
    is_any = row_sum > 0.0
    row_sum = tl.where(is_any, row_sum, 1.0)
    acc = acc / row_sum[:, None]
    lse = tl.where(is_any, row_max + tl.log2(row_sum), -1.0e30)
    splits_before = request.to(tl.int64) * tl.num_programs(1) + split
    out_rows = (splits_before * QUERY_LEN + token) * NUM_Q_HEADS + head
    targets = partial_ptr + out_rows[:, None] * HEAD_DIM + columns[None, :]
    tl.store(targets, acc.to(partial_ptr.dtype.element_ty), mask=is_row[:, None])
    tl.store(lse_ptr + out_rows, lse, mask=is_row)


def candidates(block_size: int) -> list[Config]:
    """Returns the configurations that tuning tries; ctas_per_sm sets how finely the context is split."""
    return [
        Config({"BLOCK_N": block_n, "USE_TMA": use_tma}, warps, stages, ctas)
        for block_n in (32, 64, 128)
        for use_tma in ((False, True) if block_size % block_n == 0 else (False,))
        for warps in (2, 4)
        for stages in (3, 4, 5, 6)
        for ctas in (4, 8, 16)
    ]


def default_config(block_size: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    return Config({"BLOCK_N": 64, "USE_TMA": block_size % 64 == 0}, 4, 3, ctas_per_sm=8)


def choose_splits(config: Config, *, num_programs: int, max_context_len: int, device: torch.device) -> int:
    """Returns into how many parts each context is split, so that the grid holds ctas_per_sm times the SMs."""
    wanted = triton.cdiv(config.ctas_per_sm * num_sms(device), num_programs)
    tiles = triton.cdiv(max_context_len, config.meta["BLOCK_N"])
    return max(1, min(wanted, tiles, MAX_SPLITS))


def decode_attention(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, block_table: torch.Tensor,
    context_lens: torch.Tensor, *, max_context_len: int, scale: float | None = None,
    k_scale: torch.Tensor | None = None, v_scale: torch.Tensor | None = None, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns attention of the last query_len tokens of every request, shaped and typed as q.

    max_context_len: a bound of context_lens, known on the host. scale: head_dim ** -0.5 if None.
    Raises: ValueError if heads, dtypes or layouts do not fit.
    """
    _check(q, k_cache, v_cache, k_scale, v_scale)
    num_requests, query_len, num_q_heads, head_dim = q.shape
    block_size, num_kv_heads = k_cache.shape[1:3]
    variant = f"{DTYPE_NAMES[k_cache.dtype]}.block{block_size}"
    num_rows = query_len * num_q_heads // num_kv_heads
    shape = (num_requests, max_context_len, num_kv_heads, num_rows, head_dim)
    chosen = (
        config or tuned_config("attention_decode", variant, shape, q.device) or default_config(block_size)
    )
    splits = choose_splits(
        chosen, num_programs=num_requests * num_kv_heads, max_context_len=max_context_len, device=q.device
    )
    out = torch.empty_like(q)
    partial = out if splits == 1 else q.new_empty((num_requests, splits, *q.shape[1:]), dtype=torch.float32)
    lse = q.new_empty((num_requests, splits, query_len, num_q_heads), dtype=torch.float32)
    k_rows, v_rows = (cache.view(-1, num_kv_heads * head_dim) for cache in (k_cache, v_cache))
    block = [chosen.meta["BLOCK_N"], head_dim]
    _decode_kernel[(num_kv_heads, splits, num_requests)](
        q, TensorDescriptor.from_tensor(k_rows, block), TensorDescriptor.from_tensor(v_rows, block),
        k_rows, v_rows,
        k_scale, v_scale, block_table, context_lens, partial, lse, block_table.stride(0),
        (scale or head_dim**-0.5) * LOG2_E,
        QUERY_LEN=query_len, NUM_Q_HEADS=num_q_heads, NUM_KV_HEADS=num_kv_heads, HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size, IS_QUANTIZED=k_scale is not None, DOT_DTYPE=_dot_dtype(q, k_cache),
        ROWS=max(MIN_ROWS, triton.next_power_of_2(num_rows)),
        **chosen.launch_options(),
    )  # fmt: skip
    if splits > 1:
        reduce_splits(partial, lse, out)
    return out


def _dot_dtype(q: torch.Tensor, k_cache: torch.Tensor) -> tl.dtype:
    """Returns fp16 for fp8 caches, which one instruction converts two e4m3 codes to; else the dtype of q."""
    if k_cache.dtype == torch.float8_e4m3fn:
        return tl.float16
    return {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}[q.dtype]


def _check(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, k_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> None:  # fmt: skip
    if q.ndim != 4 or k_cache.ndim != 4 or k_cache.shape != v_cache.shape or k_cache.shape[3] != q.shape[3]:
        raise ValueError(
            f"heads do not fit: q {tuple(q.shape)}, caches {tuple(k_cache.shape)}, {tuple(v_cache.shape)}"
        )
    if q.shape[2] % k_cache.shape[2] or not 1 <= q.shape[1] <= 8:
        raise ValueError(
            f"expected whole groups of query heads and 1 to 8 query tokens, got q {tuple(q.shape)}"
        )
    if k_cache.dtype != v_cache.dtype or k_cache.dtype not in DTYPE_NAMES:
        raise ValueError(f"expected caches of one dtype, got {k_cache.dtype} and {v_cache.dtype}")
    if (k_cache.itemsize == 1) != (k_scale is not None and v_scale is not None):
        raise ValueError("a quantised cache, and only that, needs k_scale and v_scale")
    if not (q.is_contiguous() and k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise ValueError("q and the caches must be contiguous")


def decode_attention_oracle(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, block_table: torch.Tensor,
    context_lens: torch.Tensor, *, scale: float | None = None,
    k_scale: torch.Tensor | None = None, v_scale: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns what `decode_attention` should, in float64, one request after another."""
    outs = []
    for request, context_len in enumerate(context_lens.tolist()):
        keys, values = (
            gather_pages(c, block_table[request], context_len).double() for c in (k_cache, v_cache)
        )
        if k_scale is not None and v_scale is not None:
            keys, values = keys * k_scale[:, None], values * v_scale[:, None]
        outs.append(attend(q[request], keys, values, is_causal=True, scale=scale))
    return torch.stack(outs)


def launch_work(
    sum_context: int, num_requests: int, *, query_len: int, num_q_heads: int, num_kv_heads: int,
    head_dim: int, dtype: torch.dtype, kv_dtype: torch.dtype,
) -> ops.Op:  # fmt: skip
    """Returns the FLOPs and bytes of decoding `num_requests` requests with `sum_context` cached tokens."""
    shape = ops.AttentionShape.grouped_query(
        num_q_heads, num_kv_heads, head_dim, dtype=DTYPE_NAMES[dtype], kv_dtype=DTYPE_NAMES[kv_dtype]
    )
    return ops.decode_attention(shape, sum_context=sum_context, count=num_requests, query_len=query_len)
