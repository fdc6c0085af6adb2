"""Attention over cached tokens: prefill chunks, paged decoding, latent decoding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import ceil

import torch
import torch.nn.functional as functional

from ...hwmodels.op_point import EIGHT_BIT, OpPoint, work
from ...kernels.attention_decode import decode_attention
from ...kernels.attention_mla_decode import mla_decode_attention
from ...kernels.attention_prefill import Chunks, prefill_attention
from ..buffers import Pools, num_copies
from .maker import Launch, Maker

MLA_SCALE = (128 + 64) ** -0.5  # Source: DeepSeek-V3, arXiv 2412.19437: 128 + 64 dimensions a head


def _block_tables(
    point: OpPoint, copies: int, device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor, int]:
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
    stacked = torch.stack(tables).to(device)
    return list(stacked), torch.tensor(contexts, dtype=torch.int32, device=device), copies * needed


def _triton_decode(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    tables, contexts, num_blocks = _block_tables(point, num_copies(work(point).hbm_bytes), pools.device)
    cache_shape = (num_blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.activation_dtype, point.batch, point.query_len, point.num_q_heads, point.head_dim)
    scale = torch.ones(point.num_kv_heads, device=pools.device) if point.dtype in EIGHT_BIT else None
    attend = partial(decode_attention, max_context_len=point.longest_context, k_scale=scale, v_scale=scale)
    return [[partial(attend, q, k, v, table, contexts) for table in tables]]


def _triton_mla(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    tables, contexts, num_blocks = _block_tables(point, num_copies(work(point).hbm_bytes), pools.device)
    width = point.head_dim + point.k
    cache = pools.take(point.dtype, num_blocks, point.block_size, width)
    q = pools.take(point.activation_dtype, point.batch, point.num_q_heads, width)
    attend = partial(
        mla_decode_attention,
        latent_dim=point.head_dim,
        max_context_len=point.longest_context,
        scale=MLA_SCALE,
    )
    return [[partial(attend, q, cache, table, contexts) for table in tables]]


def _triton_prefill(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    keys = point.context_len + point.query_len
    width = ceil(keys / point.block_size)
    blocks = point.batch * width
    copies = num_copies(4.0 * blocks * point.block_size * point.num_kv_heads * point.head_dim)
    cache_shape = (copies * blocks, point.block_size, point.num_kv_heads, point.head_dim)
    k, v = (pools.take(point.dtype, *cache_shape) for _ in range(2))
    q = pools.take(point.dtype, point.batch * point.query_len, point.num_q_heads, point.head_dim)
    lens = [point.query_len] * point.batch, [keys] * point.batch
    tables = (torch.randperm(blocks, dtype=torch.int32) + copy * blocks for copy in range(copies))
    chunks = [
        Chunks.of(*lens, pools.device, table.view(point.batch, width).to(pools.device)) for table in tables
    ]
    return [[partial(prefill_attention, q, k, v, chunk) for chunk in chunks]]


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


def _flash_prefill(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """torch's FlashAttention-2; its causal mask ends at the last key, as chunks need."""
    q, pairs = _sdpa_operands(point, pools, point.context_len + point.query_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [[partial(flash, q, k, v, 0.0, True) for k, v in pairs]]


def _cudnn_prefill(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    q, pairs = _sdpa_operands(point, pools, point.query_len)

    def attend(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return [[partial(attend, k, v) for k, v in pairs]]


def _flash_decode(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """torch's FlashAttention-2 with one query token and contiguous keys: no paging, equal contexts."""
    q, pairs = _sdpa_operands(point, pools, point.context_len)
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return [[partial(flash, q, k, v, 0.0, False) for k, v in pairs]]


MAKERS: Mapping[tuple[str, str], Maker] = {
    ("attention_decode", "triton"): _triton_decode,
    ("attention_decode", "sdpa-flash"): _flash_decode,
    ("mla_decode", "triton"): _triton_mla,
    ("attention_prefill", "triton"): _triton_prefill,
    ("attention_prefill", "sdpa-flash"): _flash_prefill,
    ("attention_prefill", "sdpa-cudnn"): _cudnn_prefill,
}
