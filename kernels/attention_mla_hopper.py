"""Latent decode attention for Hopper, with the copies placed by hand: `attention_mla_decode` launches it.

Shapes as there, for 512 latent and 64 rotary columns. Written in Gluon, because Triton's own pipeline issues
the copy of the next tile only after the current one is computed, when the two tiles that fit beside the
queries are not yet enough to hide it. Here the copy starts before the products of the current tile, into the
buffer that the last one left.
Papers: DeepSeek-V2, arXiv 2405.04434; the split of 512 output columns over two warpgroups as in FlashMLA
(github.com/deepseek-ai/FlashMLA, deep-dive notes of 2025-04-22).
"""

from __future__ import annotations

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .tuning import Config

LATENT_DIM, ROPE_DIM = 512, 64
# 64 rows as of a warpgroup's product; the queries and two tiles of 64 keys fill 220 KiB of shared memory.
HOPPER_TILE = Config({"BLOCK_H": 64, "BLOCK_N": 64}, num_warps=8)
BLOCK_H, BLOCK_N = HOPPER_TILE.meta["BLOCK_H"], HOPPER_TILE.meta["BLOCK_N"]
HOPPER = (9, 0)
# Triton 3.6 calls it thread_barrier, later versions barrier.
cta_barrier = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier


@gluon.jit
def _copy_tile(
    latent_desc,
    rope_desc,
    latent,
    rope,
    barrier,
    row,
    is_wanted,
    LATENT: gl.constexpr,
    NUM_BYTES: gl.constexpr,
):
    mbarrier.expect(barrier, NUM_BYTES, pred=is_wanted)
    tma.async_copy_global_to_shared(latent_desc, [row, 0], barrier, latent, pred=is_wanted)
    tma.async_copy_global_to_shared(rope_desc, [row, LATENT], barrier, rope, pred=is_wanted)


@gluon.jit
def _mla_hopper_kernel(
    q_desc, q_rope_desc, latent_desc, rope_desc, table_ptr, context_lens_ptr, partial_ptr, lse_ptr,
    # dimensions
    table_stride, scale,
    # shape of the heads
    NUM_HEADS: gl.constexpr, LATENT: gl.constexpr, ROPE: gl.constexpr, BLOCK_SIZE: gl.constexpr,
    # tile
    BLOCK_H: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """Grid (head blocks, num_splits, num_requests); partial (requests, splits, heads, latent)."""
    dtype: gl.constexpr = latent_desc.dtype
    # Both warpgroups hold all 64 rows: of the scores each has half the keys, of the output half the columns.
    scores_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 2], instr_shape=[16, BLOCK_N // 2, 16]
    )
    out_layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 2], instr_shape=[16, LATENT // 2, 16]
    )
    weights_layout: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=out_layout, k_width=2)
    TILE_BYTES: gl.constexpr = BLOCK_N * (LATENT + ROPE) * 2
    first_head = gl.program_id(0) * BLOCK_H
    split = gl.program_id(1)
    request = gl.program_id(2)
    context_len = gl.load(context_lens_ptr + request)
    tiles_per_split = gl.cdiv(gl.cdiv(context_len, BLOCK_N), gl.num_programs(1))
    first_key = split * tiles_per_split * BLOCK_N
    last_key = gl.minimum(first_key + tiles_per_split * BLOCK_N, context_len)
    num_tiles = gl.cdiv(gl.maximum(last_key - first_key, 0), BLOCK_N)
    table_ptr += request * table_stride
    last_block = (context_len - 1) // BLOCK_SIZE

    q = gl.allocate_shared_memory(dtype, [BLOCK_H, LATENT], q_desc.layout)
    q_rope = gl.allocate_shared_memory(dtype, [BLOCK_H, ROPE], q_rope_desc.layout)
    latents = gl.allocate_shared_memory(dtype, [2, BLOCK_N, LATENT], latent_desc.layout)
    ropes = gl.allocate_shared_memory(dtype, [2, BLOCK_N, ROPE], rope_desc.layout)
    barriers = gl.allocate_shared_memory(gl.int64, [3, 1], mbarrier.MBarrierLayout())
    for index in gl.static_range(3):
        mbarrier.init(barriers.index(index), count=1)
    fence_async_shared()
    q_row = request * NUM_HEADS + first_head
    mbarrier.expect(barriers.index(2), BLOCK_H * (LATENT + ROPE) * 2)
    tma.async_copy_global_to_shared(q_desc, [q_row, 0], barriers.index(2), q)
    tma.async_copy_global_to_shared(q_rope_desc, [q_row, LATENT], barriers.index(2), q_rope)
    block = gl.load(table_ptr + gl.minimum(first_key // BLOCK_SIZE, last_block))
    row = block * BLOCK_SIZE + first_key % BLOCK_SIZE
    _copy_tile(
        latent_desc, rope_desc, latents.index(0), ropes.index(0), barriers.index(0), row, num_tiles > 0,
        LATENT, TILE_BYTES,
    )  # fmt: skip
    block = gl.load(table_ptr + gl.minimum((first_key + BLOCK_N) // BLOCK_SIZE, last_block))
    mbarrier.wait(barriers.index(2), 0)

    acc = gl.zeros((BLOCK_H, LATENT), gl.float32, out_layout)
    no_scores = gl.zeros((BLOCK_H, BLOCK_N), gl.float32, scores_layout)
    row_sum = gl.full((BLOCK_H,), 0.0, gl.float32, gl.SliceLayout(1, scores_layout))
    row_max = gl.full((BLOCK_H,), -1.0e30, gl.float32, gl.SliceLayout(1, scores_layout))
    for tile in range(num_tiles):
        start = first_key + tile * BLOCK_N
        slot = tile % 2
        # Every warp has waited for the products of the last tile, so its buffer may be written.
        cta_barrier()
        row = block * BLOCK_SIZE + (start + BLOCK_N) % BLOCK_SIZE
        _copy_tile(
            latent_desc, rope_desc, latents.index(1 - slot), ropes.index(1 - slot),
            barriers.index(1 - slot), row, tile + 1 < num_tiles, LATENT, TILE_BYTES,
        )  # fmt: skip
        block = gl.load(table_ptr + gl.minimum((start + 2 * BLOCK_N) // BLOCK_SIZE, last_block))
        mbarrier.wait(barriers.index(slot), (tile // 2) & 1)
        latent = latents.index(slot)
        scores = warpgroup_mma(q, latent.permute((1, 0)), no_scores, use_acc=False, is_async=True)
        scores = warpgroup_mma(q_rope, ropes.index(slot).permute((1, 0)), scores, is_async=True)
        scores = warpgroup_mma_wait(0, deps=[scores])
        keys = start + gl.arange(0, BLOCK_N, gl.SliceLayout(0, scores_layout))
        scores = gl.where((keys < last_key)[None, :], scores * scale, -1.0e30)
        new_max = gl.maximum(row_max, gl.max(scores, 1))
        weights = gl.exp2(scores - new_max[:, None])
        correction = gl.exp2(row_max - new_max)
        row_sum = row_sum * correction + gl.sum(weights, 1)
        row_max = new_max
        acc = acc * gl.convert_layout(correction, gl.SliceLayout(1, out_layout))[:, None]
        acc = warpgroup_mma(gl.convert_layout(weights.to(dtype), weights_layout), latent, acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])

    is_any = row_sum > 0.0
    row_sum = gl.where(is_any, row_sum, 1.0)
    lse = gl.where(is_any, row_max + gl.log2(row_sum), -1.0e30)
    first_row = (request.to(gl.int64) * gl.num_programs(1) + split) * NUM_HEADS + first_head
    heads = gl.arange(0, BLOCK_H, gl.SliceLayout(1, scores_layout))
    gl.store(lse_ptr + first_row + heads, lse, mask=first_head + heads < NUM_HEADS)
    out = acc / gl.convert_layout(row_sum, gl.SliceLayout(1, out_layout))[:, None]
    heads = gl.arange(0, BLOCK_H, gl.SliceLayout(1, out_layout))
    columns = gl.arange(0, LATENT, gl.SliceLayout(0, out_layout))
    targets = partial_ptr + (first_row + heads)[:, None] * LATENT + columns[None, :]
    gl.store(targets, out.to(partial_ptr.dtype.element_ty), mask=(first_head + heads < NUM_HEADS)[:, None])


def is_supported(q: torch.Tensor, cache: torch.Tensor, latent_dim: int) -> bool:
    """Returns whether this kernel serves: Hopper, bf16 or fp16, DeepSeek's sizes, pages of whole tiles."""
    return (
        q.device.type == "cuda"
        and torch.cuda.get_device_capability(q.device) == HOPPER
        and q.dtype in (torch.bfloat16, torch.float16)
        and (latent_dim, q.shape[2] - latent_dim) == (LATENT_DIM, ROPE_DIM)
        and q.shape[1] % BLOCK_H == 0
        and cache.shape[1] % BLOCK_N == 0
    )


def launch_hopper(
    q: torch.Tensor, cache: torch.Tensor, block_table: torch.Tensor, context_lens: torch.Tensor,
    partial: torch.Tensor, lse: torch.Tensor, *, num_splits: int, scale: float,
) -> None:  # fmt: skip
    """Launches the kernel into `partial` and `lse`; `scale` includes log2(e)."""
    num_requests, num_heads, width = q.shape
    kind = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}[q.dtype]
    layout = gl.NVMMASharedLayout.get_default_for([BLOCK_N, ROPE_DIM], kind)
    q_rows, cache_rows = q.view(-1, width), cache.view(-1, width)
    _mla_hopper_kernel[(triton.cdiv(num_heads, BLOCK_H), num_splits, num_requests)](
        TensorDescriptor.from_tensor(q_rows, [BLOCK_H, LATENT_DIM], layout),
        TensorDescriptor.from_tensor(q_rows, [BLOCK_H, ROPE_DIM], layout),
        TensorDescriptor.from_tensor(cache_rows, [BLOCK_N, LATENT_DIM], layout),
        TensorDescriptor.from_tensor(cache_rows, [BLOCK_N, ROPE_DIM], layout),
        block_table, context_lens, partial, lse, block_table.stride(0), scale,
        NUM_HEADS=num_heads, LATENT=LATENT_DIM, ROPE=ROPE_DIM, BLOCK_SIZE=cache.shape[1],
        BLOCK_H=BLOCK_H, BLOCK_N=BLOCK_N, num_warps=HOPPER_TILE.num_warps,
    )  # fmt: skip
