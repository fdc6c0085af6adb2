"""FlashAttention-2 with 8-bit scores: queries and keys become int8 codes, whose product runs twice as fast.

Shapes and chunks as in `attention_prefill`. Keys lose their mean over the request first: that moves all the
scores of a query alike, which softmax does not see, and frees the codes of what a channel has in every key.
Queries get a scale per token and head, keys one per tile of BLOCK_N keys and KV head; probabilities and
values are multiplied in the dtype of v, all sums fp32 (int32 for the codes).
Paper: SageAttention, arXiv 2410.02367, section 4 (smoothing of K, int8 QK, 16-bit PV).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from .attention_prefill import LOG2_E, Chunks, attend, check_chunks, gather_pages, launch_work, load_kv
from .attention_prefill import prefill_attention_oracle as exact_oracle
from .gemm import DTYPE_NAMES
from .quantize import INT8_MAX, encode
from .quantize_keys import LEAST_SCALE, QuantizedKeys, quantize_keys
from .tuning import Config, tuned_config

__all__ = [
    "candidates",
    "default_config",
    "exact_oracle",
    "launch_work",
    "prefill_attention_int8",
    "rounded_oracle",
]

MIN_HEAD_DIM = 32  # Source: PTX ISA, wgmma and mma of 8-bit types multiply 32 columns at a time


@triton.jit
def _walk_codes(
    acc, row_sum, row_max, q_codes, row_scale, k_desc, v_desc, v_ptr, table_ptr, scales_ptr, kv_start,
    kv_head, first_key, last_key, query_positions, kv_len,
    IS_MASKED: tl.constexpr, IS_CAUSAL: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_SIZE: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """One pass over keys [first_key, last_key); row_scale turns codes into scores in base 2."""
    for start in tl.range(first_key, last_key, BLOCK_N):
        k = k_desc.load([kv_start + start, kv_head * HEAD_DIM])
        factor = row_scale * tl.load(scales_ptr + start // BLOCK_N * NUM_KV_HEADS)
        scores = tl.dot(q_codes, k.T, out_dtype=tl.int32).to(tl.float32)
        if IS_MASKED:
            keys = start + tl.arange(0, BLOCK_N)
            is_seen = keys[None, :] < kv_len
            if IS_CAUSAL:
                is_seen = is_seen & (keys[None, :] <= query_positions[:, None])
            scores = tl.where(is_seen, scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1) * factor)
        p = tl.exp2(scores * factor[:, None] - new_max[:, None])
        if IS_MASKED:
            # Where query or keys are all zero, so is the factor, and with it what a hidden score becomes.
            p = tl.where(is_seen, p, 0.0)
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
def _prefill_int8_kernel(
    q_desc, k_desc, v_desc, v_ptr, out_ptr, scales_ptr, query_starts_ptr, kv_starts_ptr, table_ptr,
    # dimensions
    table_stride, num_tiles, scale,
    # shape of the heads
    NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, IS_CAUSAL: tl.constexpr, MAX_CODE: tl.constexpr, LEAST: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """Grid (num_q_heads, query tiles, num_requests), the tiles with the most keys first; q in 16 bits."""
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
        scales_ptr += request * num_tiles * NUM_KV_HEADS + kv_head
        if BLOCK_SIZE > 0:
            table_ptr += request * table_stride
        rows = first_query + tl.arange(0, BLOCK_M)
        q = q_desc.load([query_start + first_query, head * HEAD_DIM]).to(tl.float32)
        row_scale = tl.maximum(tl.max(tl.abs(q), 1), LEAST) / MAX_CODE
        q_codes = encode(q, row_scale[:, None], MAX_CODE, True)
        row_scale *= scale
        acc = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
        row_sum = tl.zeros((BLOCK_M,), dtype=tl.float32)
        row_max = tl.full((BLOCK_M,), -1.0e30, dtype=tl.float32)
        if IS_CAUSAL:
            unmasked_end = (context_len + first_query + 1) // BLOCK_N * BLOCK_N
            end = tl.minimum(kv_len, context_len + first_query + BLOCK_M)
        else:
            unmasked_end = kv_len // BLOCK_N * BLOCK_N
            end = kv_len
        acc, row_sum, row_max = _walk_codes(
            acc, row_sum, row_max, q_codes, row_scale, k_desc, v_desc, v_ptr, table_ptr, scales_ptr, kv_start,
            kv_head, 0, unmasked_end, context_len + rows, kv_len,
            False, IS_CAUSAL, NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        acc, row_sum, row_max = _walk_codes(
            acc, row_sum, row_max, q_codes, row_scale, k_desc, v_desc, v_ptr, table_ptr, scales_ptr, kv_start,
            kv_head, unmasked_end, end, context_len + rows, kv_len,
            True, IS_CAUSAL, NUM_KV_HEADS, HEAD_DIM, BLOCK_N, BLOCK_SIZE, USE_TMA,
        )  # fmt: skip
        out = acc / row_sum[:, None]
        columns = head * HEAD_DIM + tl.arange(0, HEAD_DIM)
        targets = (query_start + rows).to(tl.int64)[:, None] * (NUM_Q_HEADS * HEAD_DIM) + columns[None, :]
        tl.store(out_ptr + targets, out.to(out_ptr.dtype.element_ty), mask=(rows < query_len)[:, None])


def candidates(block_size: int = 0) -> list[Config]:
    """Returns the configurations that tuning tries; BLOCK_N is also how many keys share a scale."""
    tiles = [
        (128, 128, 8),
        (128, 64, 8),
        (128, 64, 4),
        (64, 64, 4),
        (64, 128, 4),
        (128, 128, 4),
        (128, 32, 4),
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
    return Config({"BLOCK_M": 64, "BLOCK_N": 64, "USE_TMA": block_size % 64 == 0}, 4, 2)


def prefill_attention_int8(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunks: Chunks, *, is_causal: bool = True,
    scale: float | None = None, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns what `prefill_attention` does, with int8 scores; the keys are quantised on the way.

    scale: of the scores, head_dim ** -0.5 if None.
    Raises: ValueError if heads, dtypes or layouts do not fit, or head_dim is below 32.
    """
    block_size = check_chunks(q, k, v, chunks)
    num_q_heads, head_dim = q.shape[1:]
    if head_dim < MIN_HEAD_DIM or q.dtype == torch.float32:
        raise ValueError(f"int8 scores need 16-bit heads of {MIN_HEAD_DIM} or more, got {q.dtype} {head_dim}")
    variant = f"{DTYPE_NAMES[q.dtype]}.block{block_size}"
    shape = (chunks.max_query_len, num_q_heads, k.shape[-2], head_dim)
    tuned = tuned_config("attention_prefill_int8", variant, shape, q.device)
    chosen = config or tuned or default_config(block_size)
    keys = quantize_keys(k, chunks, int(chosen.meta["BLOCK_N"]))
    factor = (scale or head_dim**-0.5) * LOG2_E
    return _launch(q, keys, v, chunks, chosen, block_size, factor=factor, is_causal=is_causal)


def _launch(
    q: torch.Tensor, keys: QuantizedKeys, v: torch.Tensor, chunks: Chunks, config: Config, block_size: int, *,
    factor: float, is_causal: bool,
) -> torch.Tensor:  # fmt: skip
    _, num_q_heads, head_dim = q.shape
    num_requests, tiles, num_kv_heads = keys.scales.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    block_m = config.meta["BLOCK_M"]
    table = chunks.block_table
    q_rows, k_rows, v_rows = q.flatten(-2), keys.codes.flatten(-2), v.flatten(-2).flatten(0, -2)
    _prefill_int8_kernel[(num_q_heads, triton.cdiv(chunks.max_query_len, block_m), num_requests)](
        TensorDescriptor.from_tensor(q_rows, [block_m, head_dim]),
        TensorDescriptor.from_tensor(k_rows, [keys.block_n, head_dim]),
        TensorDescriptor.from_tensor(v_rows, [keys.block_n, head_dim]),
        v_rows, out, keys.scales, chunks.query_starts, chunks.kv_starts,
        table, 0 if table is None else table.stride(0), tiles, factor,
        NUM_Q_HEADS=num_q_heads, NUM_KV_HEADS=num_kv_heads, HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size, IS_CAUSAL=is_causal, MAX_CODE=INT8_MAX, LEAST=LEAST_SCALE,
        **config.launch_options(),
    )  # fmt: skip
    return out


def rounded_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunks: Chunks, block_n: int, *, is_causal: bool = True
) -> torch.Tensor:
    """Returns float64 attention of the rounded queries and keys, from which only sums may differ.

    `exact_oracle` is the attention of the inputs themselves, from which 8 bits differ by about one per cent.
    """
    outs = []
    query_bounds, kv_bounds = chunks.query_starts.tolist(), chunks.kv_starts.tolist()
    for request in range(len(query_bounds) - 1):
        queries = q[query_bounds[request] : query_bounds[request + 1]].double()
        first, last = kv_bounds[request], kv_bounds[request + 1]
        if chunks.block_table is None:
            keys, values = k[first:last], v[first:last]
        else:
            keys, values = (gather_pages(c, chunks.block_table[request], last - first) for c in (k, v))
        smooth = keys.double() - keys.double().mean(0)
        tiles = [_rounded(tile, (0, 2)) for tile in smooth.split(block_n)]
        outs.append(attend(_rounded(queries, (2,)), torch.cat(tiles), values, is_causal=is_causal))
    return torch.cat(outs)


def _rounded(x: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Returns x after a trip through int8, with one scale for the elements along the dimensions `over`."""
    steps = x.abs().amax(over, keepdim=True).clamp(min=LEAST_SCALE) / INT8_MAX
    return (x / steps).round() * steps
