"""Latent decode attention for Hopper, each stage in warps of its own: `attention_mla_decode` launches it.

Shapes as there, for 512 latent and 64 rotary columns. One warpgroup computes the scores and weights of 64
keys at a time; two more add up the weighted latents, 256 columns each, as one warpgroup's registers cannot
hold all 512. So the scores of the next tile are computed beside the output of the last one, and the matrix
units do not wait for the softmax. The weights take the place of the tile's rotary columns, which the scores
have used up: queries and two tiles fill the shared memory.
Papers: DeepSeek-V2, arXiv 2405.04434; the split of the output columns over two warpgroups as in FlashMLA
(github.com/deepseek-ai/FlashMLA, deep-dive notes of 2025-04-22); softmax overlapped with products as in
FlashAttention-3, arXiv 2407.08608, section 3.
"""

from __future__ import annotations

from functools import lru_cache

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

from .hopper import cta_barrier, is_hopper
from .tuning import num_sms

LATENT_DIM, ROPE_DIM = 512, 64
# 64 rows as of a warpgroup's product; the queries and two tiles of 64 keys fill 216 KiB of shared memory.
BLOCK_H, BLOCK_N = 64, 64
# Registers of a thread: 128 hold an output half's sums; 32 scores, as many weights. The other output half
# gets what these leave of the SM's 512 a lane.
OUTPUT_REGISTERS, SCORE_REGISTERS = 192, 128
MAX_SPLITS = 128
# In tiles, of about 1.3 us on an H200: what a CTA takes before its first tile and after its last, and what it
# takes the whole GPU to write and read again one partial output, 64 x 512 in fp32, at 4.3 TB/s.
START_COST, PARTIAL_COST = 3.0, 0.04


@gluon.jit
def _copy_tile(
    latent_desc, rope_desc, latents, ropes, full, table_ptr, tile, first_key, num_tiles, last_block,
    LATENT: gl.constexpr, ROPE: gl.constexpr, BLOCK_SIZE: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """Starts the copies of a tile into its slot, unless it lies beyond the last one."""
    HALF: gl.constexpr = LATENT // 2
    is_wanted = tile < num_tiles
    start = first_key + tile * BLOCK_N
    block = gl.load(table_ptr + gl.minimum(start // BLOCK_SIZE, last_block))
    row = block * BLOCK_SIZE + start % BLOCK_SIZE
    slot = tile % 2
    ready = full.index(slot)
    mbarrier.expect(ready, BLOCK_N * (LATENT + ROPE) * 2, pred=is_wanted)
    tma.async_copy_global_to_shared(latent_desc, [row, 0], ready, latents.index(slot * 2), pred=is_wanted)
    tma.async_copy_global_to_shared(
        latent_desc, [row, HALF], ready, latents.index(slot * 2 + 1), pred=is_wanted
    )
    tma.async_copy_global_to_shared(rope_desc, [row, LATENT], ready, ropes.index(slot), pred=is_wanted)


@gluon.jit
def _score(
    lse_ptr, q, q_rope, latents, ropes, corrections, q_full, full, weighed,
    first_key, last_key, num_tiles, scale,
    BLOCK_H: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """Turns tile after tile into weights, with the factor that the sums so far must shrink by."""
    dtype: gl.constexpr = ropes.dtype
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
    )
    no_scores = gl.zeros((BLOCK_H, BLOCK_N), gl.float32, layout)
    row_sum = gl.full((BLOCK_H,), 0.0, gl.float32, gl.SliceLayout(1, layout))
    row_max = gl.full((BLOCK_H,), -1.0e30, gl.float32, gl.SliceLayout(1, layout))
    mbarrier.wait(q_full, 0)
    for tile in range(num_tiles):
        slot = tile % 2
        mbarrier.wait(full.index(slot), tile // 2 & 1)
        left, right = latents.index(slot * 2), latents.index(slot * 2 + 1)
        rope = ropes.index(slot)
        scores = warpgroup_mma(q.index(0), left.permute((1, 0)), no_scores, use_acc=False, is_async=True)
        scores = warpgroup_mma(q.index(1), right.permute((1, 0)), scores, is_async=True)
        scores = warpgroup_mma(q_rope, rope.permute((1, 0)), scores, is_async=True)
        scores = warpgroup_mma_wait(0, deps=[scores])
        keys = first_key + tile * BLOCK_N + gl.arange(0, BLOCK_N, gl.SliceLayout(0, layout))
        scores = gl.where((keys < last_key)[None, :], scores * scale, -1.0e30)
        new_max = gl.maximum(row_max, gl.max(scores, 1))
        weights = gl.exp2(scores - new_max[:, None])
        correction = gl.exp2(row_max - new_max)
        row_sum = row_sum * correction + gl.sum(weights, 1)
        row_max = new_max
        # Every warp has read the rotary columns, whose place the weights take.
        cta_barrier()
        rope.store(weights.to(dtype))
        corrections.index(slot).store(correction)
        fence_async_shared()
        cta_barrier()
        mbarrier.arrive(weighed.index(slot))
    is_any = row_sum > 0.0
    row_sum = gl.where(is_any, row_sum, 1.0)
    gl.store(
        lse_ptr + gl.arange(0, BLOCK_H, gl.SliceLayout(1, layout)),
        gl.where(is_any, row_max + gl.log2(row_sum), -1.0e30),
    )
    corrections.index(2).store(1.0 / row_sum)
    cta_barrier()
    mbarrier.arrive(weighed.index(2))


@gluon.jit
def _add_up(
    partial_ptr, latent_desc, rope_desc, latents, ropes, corrections, full, weighed, empty,
    table_ptr, first_key, num_tiles, last_block,
    HALF: gl.constexpr, LATENT: gl.constexpr, ROPE: gl.constexpr, BLOCK_SIZE: gl.constexpr,
    BLOCK_H: gl.constexpr, BLOCK_N: gl.constexpr,
):  # fmt: skip
    """Adds up the weighted latents, columns HALF * LATENT / 2 onward, and stores them normalised.

    Half 0 also copies: the next tile but one, once half 1 has left the slot, too.
    """
    WIDTH: gl.constexpr = LATENT // 2
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, WIDTH, 16]
    )
    row_layout: gl.constexpr = gl.SliceLayout(1, layout)
    acc = gl.zeros((BLOCK_H, WIDTH), gl.float32, layout)
    for tile in range(num_tiles):
        slot = tile % 2
        phase = tile // 2 & 1
        mbarrier.wait(full.index(slot), phase)
        mbarrier.wait(weighed.index(slot), phase)
        acc = acc * corrections.index(slot).load(row_layout)[:, None]
        acc = warpgroup_mma(ropes.index(slot), latents.index(slot * 2 + HALF), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        cta_barrier()
        if HALF == 0:
            mbarrier.wait(empty.index(slot), phase)
            _copy_tile(
                latent_desc, rope_desc, latents, ropes, full, table_ptr, tile + 2, first_key, num_tiles,
                last_block, LATENT, ROPE, BLOCK_SIZE, BLOCK_N,
            )  # fmt: skip
        else:
            mbarrier.arrive(empty.index(slot))
    mbarrier.wait(weighed.index(2), 0)
    out = acc * corrections.index(2).load(row_layout)[:, None]
    heads = gl.arange(0, BLOCK_H, row_layout)
    columns = HALF * WIDTH + gl.arange(0, WIDTH, gl.SliceLayout(0, layout))
    gl.store(partial_ptr + heads[:, None] * LATENT + columns[None, :], out.to(partial_ptr.dtype.element_ty))


@gluon.jit
def _mla_hopper_kernel(
    q_desc, q_rope_desc, latent_desc, rope_desc, table_ptr, context_lens_ptr, partial_ptr, lse_ptr,
    # dimensions
    table_stride, scale,
    # shape of the heads
    NUM_HEADS: gl.constexpr, LATENT: gl.constexpr, ROPE: gl.constexpr, BLOCK_SIZE: gl.constexpr,
    # tile
    BLOCK_H: gl.constexpr, BLOCK_N: gl.constexpr,
    OUTPUT_REGISTERS: gl.constexpr, SCORE_REGISTERS: gl.constexpr,
):  # fmt: skip
    """Grid (head blocks, num_splits, num_requests); partial (requests, splits, heads, latent)."""
    dtype: gl.constexpr = latent_desc.dtype
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
    first_row = (request.to(gl.int64) * gl.num_programs(1) + split) * NUM_HEADS + first_head
    partial_ptr += first_row * LATENT
    lse_ptr += first_row

    q = gl.allocate_shared_memory(dtype, [2, BLOCK_H, LATENT // 2], q_desc.layout)
    q_rope = gl.allocate_shared_memory(dtype, [BLOCK_H, ROPE], q_rope_desc.layout)
    latents = gl.allocate_shared_memory(dtype, [4, BLOCK_N, LATENT // 2], latent_desc.layout)
    ropes = gl.allocate_shared_memory(dtype, [2, BLOCK_N, ROPE], rope_desc.layout)
    corrections = gl.allocate_shared_memory(
        gl.float32, [3, BLOCK_H], gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0])
    )
    barrier_layout: gl.constexpr = mbarrier.MBarrierLayout()
    q_full = gl.allocate_shared_memory(gl.int64, [1], barrier_layout)
    full = gl.allocate_shared_memory(gl.int64, [2, 1], barrier_layout)
    empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier_layout)
    # Of the weights of two tiles, and of the last factor, which normalises.
    weighed = gl.allocate_shared_memory(gl.int64, [3, 1], barrier_layout)
    mbarrier.init(q_full, count=1)
    for slot in gl.static_range(2):
        mbarrier.init(full.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=1)
    for slot in gl.static_range(3):
        mbarrier.init(weighed.index(slot), count=1)
    fence_async_shared()
    q_row = request * NUM_HEADS + first_head
    mbarrier.expect(q_full, BLOCK_H * (LATENT + ROPE) * 2)
    tma.async_copy_global_to_shared(q_desc, [q_row, 0], q_full, q.index(0))
    tma.async_copy_global_to_shared(q_desc, [q_row, LATENT // 2], q_full, q.index(1))
    tma.async_copy_global_to_shared(q_rope_desc, [q_row, LATENT], q_full, q_rope)
    for tile in gl.static_range(2):
        _copy_tile(
            latent_desc, rope_desc, latents, ropes, full, table_ptr, tile, first_key, num_tiles, last_block,
            LATENT, ROPE, BLOCK_SIZE, BLOCK_N,
        )  # fmt: skip
    gl.warp_specialize(
        [
            (_add_up, (
                partial_ptr, latent_desc, rope_desc, latents, ropes, corrections, full, weighed, empty,
                table_ptr, first_key, num_tiles, last_block,
                0, LATENT, ROPE, BLOCK_SIZE, BLOCK_H, BLOCK_N,
            )),
            (_add_up, (
                partial_ptr, latent_desc, rope_desc, latents, ropes, corrections, full, weighed, empty,
                table_ptr, first_key, num_tiles, last_block,
                1, LATENT, ROPE, BLOCK_SIZE, BLOCK_H, BLOCK_N,
            )),
            (_score, (
                lse_ptr, q, q_rope, latents, ropes, corrections, q_full, full, weighed,
                first_key, last_key, num_tiles, scale, BLOCK_H, BLOCK_N,
            )),
        ],
        [4, 4], [OUTPUT_REGISTERS, SCORE_REGISTERS],
    )  # fmt: skip


def splits_of(q: torch.Tensor, max_context_len: int) -> int:
    """Returns into how many parts the contexts of q (num_requests, num_heads, 576) are split."""
    programs = q.shape[0] * (q.shape[1] // BLOCK_H)
    return choose_splits(programs, triton.cdiv(max_context_len, BLOCK_N), num_sms(q.device))


@lru_cache(maxsize=4096)
def choose_splits(num_programs: int, num_tiles: int, sms: int) -> int:
    """Returns into how many parts contexts of so many tiles are split, for the shortest sum of waves.

    One CTA fits an SM, so a wave is `sms` of them. 2 programs, 64 tiles, 132 SMs: 32 parts of 2 tiles.
    """

    def cost(splits: int) -> float:
        waves = triton.cdiv(num_programs * splits, sms)
        adding_up = 0.0 if splits == 1 else PARTIAL_COST * num_programs * splits
        return waves * (triton.cdiv(num_tiles, splits) + START_COST) + adding_up

    return min(range(1, min(num_tiles, MAX_SPLITS) + 1), key=cost)


def is_supported(q: torch.Tensor, cache: torch.Tensor, latent_dim: int) -> bool:
    """Returns whether this kernel serves: Hopper, bf16 or fp16, DeepSeek's sizes, pages of whole tiles."""
    return (
        q.device.type == "cuda"
        and is_hopper()
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
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16)
    q_rows, cache_rows = q.view(-1, width), cache.view(-1, width)
    _mla_hopper_kernel[(num_heads // BLOCK_H, num_splits, num_requests)](
        TensorDescriptor.from_tensor(q_rows, [BLOCK_H, LATENT_DIM // 2], layout),
        TensorDescriptor.from_tensor(q_rows, [BLOCK_H, ROPE_DIM], layout),
        TensorDescriptor.from_tensor(cache_rows, [BLOCK_N, LATENT_DIM // 2], layout),
        TensorDescriptor.from_tensor(cache_rows, [BLOCK_N, ROPE_DIM], layout),
        block_table, context_lens, partial, lse, block_table.stride(0), scale,
        NUM_HEADS=num_heads, LATENT=LATENT_DIM, ROPE=ROPE_DIM, BLOCK_SIZE=cache.shape[1],
        BLOCK_H=BLOCK_H, BLOCK_N=BLOCK_N, OUTPUT_REGISTERS=OUTPUT_REGISTERS,
        SCORE_REGISTERS=SCORE_REGISTERS, num_warps=4,
    )  # fmt: skip
