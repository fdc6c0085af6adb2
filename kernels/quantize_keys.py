"""Keys as int8 codes without their mean: what attention with 8-bit scores multiplies queries with.

Shapes: k (num_keys, num_kv_heads, head_dim), the requests of a batch one after another, or in pages with a
block table; codes int8 (num_keys, num_kv_heads, head_dim), contiguous in both cases; one scale per tile of
BLOCK_N keys and KV head. A first launch adds up the keys of every request, a second subtracts the mean and
rounds.
Paper: SageAttention, arXiv 2410.02367, section 4: channels that are large in every key would else take up the
range of the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .attention_prefill import Chunks
from .gemm import DTYPE_NAMES
from .quantize import INT8_MAX, encode

SUM_ROWS, SUM_SPLITS = 64, 32  # keys that a program of the mean loads at a time, and programs per head
LEAST_SCALE = 1.0e-12  # of rows that are all zero


@triton.jit
def _key_rows(table_ptr, kv_start, positions, is_key, BLOCK_SIZE: tl.constexpr):
    if BLOCK_SIZE > 0:
        pages = tl.load(table_ptr + positions // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
        return pages * BLOCK_SIZE + positions % BLOCK_SIZE
    else:  # noqa: RET505 (Triton compiles code after a return, with operands that are not there)
        return (kv_start + positions).to(tl.int64)


@triton.jit
def _key_sums_kernel(
    k_ptr, sums_ptr, kv_starts_ptr, table_ptr, table_stride, row_stride,
    NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Grid (num_kv_heads, splits, num_requests); sums (num_requests, splits, num_kv_heads, head_dim)."""
    head, split, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_start = tl.load(kv_starts_ptr + request)
    kv_len = tl.load(kv_starts_ptr + request + 1) - kv_start
    columns = tl.arange(0, HEAD_DIM)
    if BLOCK_SIZE > 0:
        table_ptr += request * table_stride
    total = tl.zeros((HEAD_DIM,), dtype=tl.float32)
    for start in tl.range(split * ROWS, kv_len, tl.num_programs(1) * ROWS):
        positions = start + tl.arange(0, ROWS)
        is_key = positions < kv_len
        rows = _key_rows(table_ptr, kv_start, positions, is_key, BLOCK_SIZE)
        sources = rows[:, None] * row_stride + head * HEAD_DIM + columns[None, :]
        total += tl.sum(tl.load(k_ptr + sources, mask=is_key[:, None], other=0.0).to(tl.float32), 0)
    target = (request * tl.num_programs(1) + split) * NUM_KV_HEADS + head
    tl.store(sums_ptr + target * HEAD_DIM + columns, total)


@triton.jit
def _quantize_keys_kernel(
    k_ptr, sums_ptr, codes_ptr, scales_ptr, kv_starts_ptr, table_ptr, table_stride, row_stride,
    NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr, MAX_CODE: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of keys, num_kv_heads, num_requests); scales (num_requests, tiles, num_kv_heads)."""
    tile, head, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_start = tl.load(kv_starts_ptr + request)
    kv_len = tl.load(kv_starts_ptr + request + 1) - kv_start
    if tile * BLOCK_N < kv_len:
        columns = tl.arange(0, HEAD_DIM)
        if BLOCK_SIZE > 0:
            table_ptr += request * table_stride
        splits = (request * SPLITS + tl.arange(0, SPLITS)) * NUM_KV_HEADS + head
        mean = tl.sum(tl.load(sums_ptr + splits[:, None] * HEAD_DIM + columns[None, :]), 0) / kv_len
        positions = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        is_key = positions < kv_len
        rows = _key_rows(table_ptr, kv_start, positions, is_key, BLOCK_SIZE)
        sources = rows[:, None] * row_stride + head * HEAD_DIM + columns[None, :]
        keys = tl.load(k_ptr + sources, mask=is_key[:, None], other=0.0).to(tl.float32)
        keys = tl.where(is_key[:, None], keys - mean[None, :], 0.0)
        scale = tl.maximum(tl.max(tl.abs(keys)), LEAST) / MAX_CODE
        tl.store(scales_ptr + (request * tl.num_programs(0) + tile) * NUM_KV_HEADS + head, scale)
        code_rows = (kv_start + positions).to(tl.int64)
        targets = (code_rows[:, None] * NUM_KV_HEADS + head) * HEAD_DIM + columns[None, :]
        tl.store(codes_ptr + targets, encode(keys, scale, MAX_CODE, True), mask=is_key[:, None])


@dataclass(frozen=True, slots=True)
class QuantizedKeys:
    """Keys of a batch of chunks, smoothed and rounded.

    codes: int8 (num_keys, num_kv_heads, head_dim), request after request, contiguous also where k is paged.
    scales: fp32 (num_requests, tiles, num_kv_heads), one per `block_n` keys.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    block_n: int


def quantize_keys(k: torch.Tensor, chunks: Chunks, block_n: int) -> QuantizedKeys:
    """Returns the int8 keys of all requests, contiguous, with a scale per `block_n` keys: two launches.

    An engine would do this once per token, as it writes the cache.
    SIMPLIFIED: the whole context is rounded again for every chunk; effect: one more pass over its keys.
    """
    num_kv_heads, head_dim = k.shape[-2:]
    block_size = 0 if chunks.block_table is None else k.shape[1]
    num_requests = len(chunks.kv_starts) - 1
    sums = k.new_empty((num_requests, SUM_SPLITS, num_kv_heads, head_dim), dtype=torch.float32)
    codes = k.new_empty((chunks.num_keys, num_kv_heads, head_dim), dtype=torch.int8)
    tiles = triton.cdiv(chunks.max_kv_len, block_n)
    scales = k.new_empty((num_requests, tiles, num_kv_heads), dtype=torch.float32)
    table = chunks.block_table
    strides = 0 if table is None else table.stride(0), k.stride(-3)
    heads = {"NUM_KV_HEADS": num_kv_heads, "HEAD_DIM": head_dim, "BLOCK_SIZE": block_size}
    _key_sums_kernel[(num_kv_heads, SUM_SPLITS, num_requests)](
        k, sums, chunks.kv_starts, table, *strides, ROWS=SUM_ROWS, **heads
    )
    _quantize_keys_kernel[(tiles, num_kv_heads, num_requests)](
        k, sums, codes, scales, chunks.kv_starts, table, *strides,
        BLOCK_N=block_n, SPLITS=SUM_SPLITS, MAX_CODE=INT8_MAX, LEAST=LEAST_SCALE, **heads,
    )  # fmt: skip
    return QuantizedKeys(codes, scales, block_n)


def launch_work(num_keys: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> ops.Op:
    """Returns the bytes of `quantize_keys`: read for the mean, read again, written in 8 bits."""
    return ops.quantize(num_keys * num_kv_heads * head_dim, DTYPE_NAMES[dtype], "int8")
