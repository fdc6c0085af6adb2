"""FlashAttention-2 over prefill chunks: each tile of queries walks its keys once, scores never leave the SM.

Shapes: q, out (sum of query_lens, num_q_heads, head_dim), the chunks of all requests one after another. Keys
and values either contiguous, (sum of kv_lens, num_kv_heads, head_dim), or in pages, (num_blocks, block_size,
num_kv_heads, head_dim) with a block table (num_requests, max_blocks). A chunk follows kv_len - query_len
tokens of context: query i sees keys 0 .. context + i, or all of them if not causal.
Papers: FlashAttention-2, arXiv 2307.08691 (queries outside, keys inside, rescale at the end); online softmax,
arXiv 1805.02867; PagedAttention, arXiv 2309.06180; grouped queries, arXiv 2305.13245. Keys and values beyond
a request's end inside its last tile are read and masked, so a cache must hold finite numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from .gemm import DTYPE_NAMES, is_tma_aligned
from .tuning import Config, tuned_config

LOG2_E = 1.4426950408889634


@triton.jit
def load_kv(
    desc, ptr, table_ptr, kv_start, start, kv_head,
    NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """Tile (BLOCK_N, HEAD_DIM) of keys or values from position `start`; BLOCK_SIZE 0 means contiguous."""
    if USE_TMA:
        row = kv_start + start
        if BLOCK_SIZE > 0:
            row = tl.load(table_ptr + start // BLOCK_SIZE) * BLOCK_SIZE + start % BLOCK_SIZE
        return desc.load([row, kv_head * HEAD_DIM])
    else:  # noqa: RET505 (Triton compiles code after a return, with operands that are not there)
        positions = start + tl.arange(0, BLOCK_N)
        rows = tl.load(table_ptr + positions // BLOCK_SIZE).to(tl.int64) * BLOCK_SIZE + positions % BLOCK_SIZE
        columns = kv_head * HEAD_DIM + tl.arange(0, HEAD_DIM)
        return tl.load(ptr + rows[:, None] * (NUM_KV_HEADS * HEAD_DIM) + columns[None, :])


@triton.jit
def _walk_keys(
    acc, row_sum, row_max, q, k_desc, v_desc, k_ptr, v_ptr, table_ptr, kv_start, kv_head,
    first_key, last_key, query_positions, kv_len, scale,
    IS_MASKED: tl.constexpr, IS_CAUSAL: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_SIZE: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """One pass over keys [first_key, last_key): online softmax in base 2, `scale` includes log2(e)."""
    for start in tl.range(first_key, last_key, BLOCK_N):
        k = load_kv(
            k_desc, k_ptr, table_ptr, kv_start, start, kv_head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        scores = tl.dot(q, k.T)
        if IS_MASKED:
            keys = start + tl.arange(0, BLOCK_N)
            is_seen = keys[None, :] < kv_len
            if IS_CAUSAL:
                is_seen = is_seen & (keys[None, :] <= query_positions[:, None])
            scores = tl.where(is_seen, scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
        p = tl.exp2(scores * scale - new_max[:, None])
        correction = tl.exp2(row_max - new_max)
        row_sum = row_sum * correction + tl.sum(p, 1)
        acc = acc * correction[:, None]
        v = load_kv(
            v_desc, v_ptr, table_ptr, kv_start, start, kv_head,
            NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        acc = tl.dot(p.to(v.dtype), v, acc)
        row_max = new_max
    return acc, row_sum, row_max


@triton.jit
def _prefill_kernel(
    q_desc, k_desc, v_desc, k_ptr, v_ptr, out_ptr, query_starts_ptr, kv_starts_ptr, table_ptr,
    # dimensions
    table_stride, scale,
    # shape of the heads
    NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, IS_CAUSAL: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """Grid (num_q_heads, query tiles, num_requests), the tiles with the most keys first."""
    head = tl.program_id(0)
    tile = tl.num_programs(1) - 1 - tl.program_id(1)
    request = tl.program_id(2)
    query_start = tl.load(query_starts_ptr + request)
    query_len = tl.load(query_starts_ptr + request + 1) - query_start
    kv_start = tl.load(kv_starts_ptr + request)
    kv_len = tl.load(kv_starts_ptr + request + 1) - kv_start
    first_query = tile * BLOCK_M
    if first_query < query_len:
        kv_head = head // (NUM_Q_HEADS // NUM_KV_HEADS)
        context_len = kv_len - query_len
        if BLOCK_SIZE > 0:
            table_ptr += request * table_stride
        rows = first_query + tl.arange(0, BLOCK_M)
        q = q_desc.load([query_start + first_query, head * HEAD_DIM])
        acc = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
        row_sum = tl.zeros((BLOCK_M,), dtype=tl.float32)
        row_max = tl.full((BLOCK_M,), -1.0e30, dtype=tl.float32)
        if IS_CAUSAL:
            unmasked_end = (context_len + first_query + 1) // BLOCK_N * BLOCK_N
            end = tl.minimum(kv_len, context_len + first_query + BLOCK_M)
        else:
            unmasked_end = kv_len // BLOCK_N * BLOCK_N
            end = kv_len
        acc, row_sum, row_max = _walk_keys(
            acc, row_sum, row_max, q, k_desc, v_desc, k_ptr, v_ptr, table_ptr, kv_start,
            kv_head, 0, unmasked_end, context_len + rows, kv_len, scale,
            False, IS_CAUSAL, NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        acc, row_sum, row_max = _walk_keys(
            acc, row_sum, row_max, q, k_desc, v_desc, k_ptr, v_ptr, table_ptr, kv_start,
            kv_head, unmasked_end, end, context_len + rows, kv_len, scale,
            True, IS_CAUSAL, NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        out = acc / row_sum[:, None]
        columns = head * HEAD_DIM + tl.arange(0, HEAD_DIM)
        targets = (query_start + rows).to(tl.int64)[:, None] * (NUM_Q_HEADS * HEAD_DIM) + columns[None, :]
        tl.store(out_ptr + targets, out.to(out_ptr.dtype.element_ty), mask=(rows < query_len)[:, None])


@dataclass(frozen=True, slots=True)
class Chunks:
    """Where the chunks of a batch lie.

    query_starts, kv_starts: running sums from 0, int32 (num_requests + 1,), on the device of q.
    max_query_len, max_kv_len: of the longest chunk, and of the longest request with its context; num_keys: of
    all requests. block_table: int32 (num_requests, max_blocks), None if contiguous.
    """

    query_starts: torch.Tensor
    kv_starts: torch.Tensor
    max_query_len: int
    max_kv_len: int
    num_keys: int
    block_table: torch.Tensor | None = None

    @classmethod
    def of(
        cls, query_lens: list[int], kv_lens: list[int], device: torch.device | str,
        block_table: torch.Tensor | None = None,
    ) -> Chunks:  # fmt: skip
        """Returns the chunks of requests with these lengths; kv_lens count the chunk itself."""
        for query_len, kv_len in zip(query_lens, kv_lens, strict=True):
            if not 0 < query_len <= kv_len:
                raise ValueError(f"a chunk of {query_len} tokens cannot end at token {kv_len}")
        starts = (
            torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
            for lens in (query_lens, kv_lens)
        )
        query_starts, kv_starts = (start.to(device) for start in starts)
        return cls(query_starts, kv_starts, max(query_lens), max(kv_lens), sum(kv_lens), block_table)


def candidates(block_size: int = 0) -> list[Config]:
    """Returns the configurations that tuning tries; TMA copies pages that hold whole tiles of keys."""
    tiles = [
        (128, 128, 8),
        (128, 64, 8),
        (128, 64, 4),
        (64, 64, 4),
        (64, 128, 4),
        (128, 128, 4),
        (128, 32, 4),
        (256, 64, 8),
    ]
    return [
        Config(
            {"BLOCK_M": bm, "BLOCK_N": bn, "USE_TMA": block_size == 0 or block_size % bn == 0}, warps, stages
        )
        for bm, bn, warps in tiles
        for stages in (2, 3, 4)
    ]


def default_config(block_size: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    block_n = 64
    return Config({"BLOCK_M": 128, "BLOCK_N": block_n, "USE_TMA": block_size % block_n == 0}, 8, 2)


def prefill_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunks: Chunks, *, is_causal: bool = True,
    scale: float | None = None, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns attention of every chunk over its context and itself, shaped and typed as q.

    scale: of the scores, head_dim ** -0.5 if None.
    Raises: ValueError if heads, dtypes or layouts do not fit.
    """
    block_size = check_chunks(q, k, v, chunks)
    _, num_q_heads, head_dim = q.shape
    num_kv_heads = k.shape[-2]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    variant = f"{DTYPE_NAMES[q.dtype]}.block{block_size}"
    shape = (chunks.max_query_len, num_q_heads, num_kv_heads, head_dim)
    chosen = (
        config or tuned_config("attention_prefill", variant, shape, q.device) or default_config(block_size)
    )
    block_m, block_n = chosen.meta["BLOCK_M"], chosen.meta["BLOCK_N"]
    table = chunks.block_table
    q_rows, k_rows, v_rows = q.flatten(-2), *(x.flatten(-2).flatten(0, -2) for x in (k, v))
    grid = (num_q_heads, triton.cdiv(chunks.max_query_len, block_m), len(chunks.query_starts) - 1)
    _prefill_kernel[grid](
        TensorDescriptor.from_tensor(q_rows, [block_m, head_dim]),
        TensorDescriptor.from_tensor(k_rows, [block_n, head_dim]),
        TensorDescriptor.from_tensor(v_rows, [block_n, head_dim]),
        k_rows, v_rows, out, chunks.query_starts, chunks.kv_starts,
        table, 0 if table is None else table.stride(0),
        (scale or head_dim**-0.5) * LOG2_E,
        NUM_Q_HEADS=num_q_heads, NUM_KV_HEADS=num_kv_heads, HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size, IS_CAUSAL=is_causal, **chosen.launch_options(),
    )  # fmt: skip
    return out


def check_chunks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunks: Chunks) -> int:
    """Returns the block size of the cache, 0 if K and V are contiguous."""
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32) or not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"expected q, k, v of one dtype of bf16, fp16, fp32, got {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if q.ndim != 3 or k.shape != v.shape or k.shape[-1] != q.shape[-1] or q.shape[1] % k.shape[-2]:
        raise ValueError(f"heads do not fit: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    if q.shape[-1] not in (16, 32, 64, 128, 256):
        raise ValueError(f"head_dim must be 16, 32, 64, 128 or 256, got {q.shape[-1]}")
    is_paged = k.ndim == 4
    if not all(x.is_contiguous() if is_paged and x is not q else are_heads_together(x) for x in (q, k, v)):
        raise ValueError("the heads of a token must lie together, rows 16 bytes apart, caches be contiguous")
    if k.ndim != (3 if chunks.block_table is None else 4):
        raise ValueError(f"a block table goes with a cache of 4 dimensions, got k {tuple(k.shape)}")
    return 0 if chunks.block_table is None else k.shape[1]


def are_heads_together(rows: torch.Tensor) -> bool:
    """Returns whether a token's heads of rows (tokens, heads, head_dim) lie together, where TMA finds them.

    Tokens may lie further apart, as queries do inside the output of a joint projection.
    """
    return rows.stride()[1:] == (rows.shape[2], 1) and is_tma_aligned(rows)


def gather_pages(cache: torch.Tensor, pages: torch.Tensor, kv_len: int) -> torch.Tensor:
    """Returns the first `kv_len` rows (kv_len, num_kv_heads, head_dim) that a row of a block table names."""
    return cache[pages.long()].flatten(0, 1)[:kv_len]


def prefill_attention_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunks: Chunks, *, is_causal: bool = True,
    scale: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns what `prefill_attention` should, in float64, one request after another."""
    outs = []
    query_bounds, kv_bounds = chunks.query_starts.tolist(), chunks.kv_starts.tolist()
    for request in range(len(query_bounds) - 1):
        queries = q[query_bounds[request] : query_bounds[request + 1]]
        kv_slice = slice(kv_bounds[request], kv_bounds[request + 1])
        kv_len = kv_slice.stop - kv_slice.start
        if chunks.block_table is None:
            keys, values = k[kv_slice], v[kv_slice]
        else:
            keys, values = (gather_pages(cache, chunks.block_table[request], kv_len) for cache in (k, v))
        outs.append(attend(queries, keys, values, is_causal=is_causal, scale=scale))
    return torch.cat(outs)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool, scale: float | None = None
) -> torch.Tensor:
    """Returns float64 attention of q (n, heads, d) over k, v (m, kv_heads, d); q are the last n of m."""
    group = q.shape[1] // k.shape[1]
    keys, values = (rows.double().repeat_interleave(group, dim=1) for rows in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q.double(), keys) * (scale or q.shape[-1] ** -0.5)
    if is_causal:
        num_queries, num_keys = q.shape[0], k.shape[0]
        hidden = torch.ones(num_queries, num_keys, dtype=torch.bool, device=q.device).triu(
            num_keys - num_queries + 1
        )
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), values)


def launch_work(
    query_len: int, context_len: int, *, num_q_heads: int, num_kv_heads: int, head_dim: int,
    dtype: torch.dtype, count: int = 1,
) -> ops.Op:  # fmt: skip
    """Returns the FLOPs and bytes of `count` equal causal chunks in one launch."""
    shape = ops.AttentionShape.grouped_query(num_q_heads, num_kv_heads, head_dim, dtype=DTYPE_NAMES[dtype])
    return ops.prefill_attention(shape, query_len=query_len, context_len=context_len, count=count)
