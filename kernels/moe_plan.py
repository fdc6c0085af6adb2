"""Sorts the rows of a mixture of experts by expert, each expert padded to whole tiles: two launches.

Shapes: experts int32 (num_tokens, top_k), the choice of every token; row t * top_k + j is choice j of token
t. A counting sort: one program per expert first counts its rows, then, knowing from all counts where its
tiles begin, writes its rows there in order. Results repeat exactly, nothing waits for the host, and all sizes
follow from shapes, so that a CUDA graph can hold the plan.
Paper: MegaBlocks, arXiv 2211.15841, section 4 (blocks of rows of one expert, no token dropped).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..hwmodels import ops

BLOCK = 2048  # rows that a program looks at at a time


@triton.jit
def _count_kernel(experts_ptr, counts_ptr, num_rows, BLOCK: tl.constexpr):
    """Grid (num_experts,)."""
    expert = tl.program_id(0)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for start in tl.range(0, num_rows, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        total += (tl.load(experts_ptr + rows, mask=rows < num_rows, other=-1) == expert).to(tl.int32)
    tl.store(counts_ptr + expert, tl.sum(total, 0))


@triton.jit
def _place_kernel(
    experts_ptr, counts_ptr, rows_ptr, tile_experts_ptr, num_tiles_ptr, num_rows, max_tiles,
    BLOCK_M: tl.constexpr, BLOCK_EXPERTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (num_experts,): every expert's rows and padding, and which tiles are its own."""
    expert = tl.program_id(0)
    num_experts = tl.num_programs(0)
    others = tl.arange(0, BLOCK_EXPERTS)
    counts = tl.load(counts_ptr + others, mask=others < num_experts, other=0)
    tiles = (counts + BLOCK_M - 1) // BLOCK_M
    first_tile = tl.sum(tl.where(others < expert, tiles, 0), 0)
    own_tiles = tl.sum(tl.where(others == expert, tiles, 0), 0)
    own_rows = tl.sum(tl.where(others == expert, counts, 0), 0)
    offsets = tl.arange(0, BLOCK)
    place = first_tile * BLOCK_M
    for start in tl.range(0, num_rows, BLOCK):
        rows = start + offsets
        is_own = tl.load(experts_ptr + rows, mask=rows < num_rows, other=-1) == expert
        ranks = tl.cumsum(is_own.to(tl.int32), 0)
        tl.store(rows_ptr + place + ranks - 1, rows, mask=is_own)
        place += tl.sum(is_own.to(tl.int32), 0)
    padding = tl.arange(0, BLOCK_M)
    is_padding = padding < own_tiles * BLOCK_M - own_rows
    tl.store(rows_ptr + first_tile * BLOCK_M + own_rows + padding, padding * 0 + num_rows, mask=is_padding)
    for start in tl.range(0, own_tiles, BLOCK):
        is_tile = start + offsets < own_tiles
        tl.store(tile_experts_ptr + first_tile + start + offsets, offsets * 0 + expert, mask=is_tile)
    num_tiles = tl.sum(tiles, 0)
    tl.store(num_tiles_ptr, num_tiles, mask=expert == 0)
    # Tiles that no row needs, at most one per expert, hold padding alone.
    spare = num_tiles + expert
    if spare < max_tiles:
        tl.store(tile_experts_ptr + spare, expert)
        tl.store(rows_ptr + spare * BLOCK_M + padding, padding * 0 + num_rows)


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows sorted by expert, in tiles of `block_m` rows that each belong to one expert.

    rows: int32 (max_tiles * block_m,), row numbers t * top_k + j; num_rows where a tile is padded.
    tile_experts: int32 (max_tiles,). num_tiles: int32 (1,), how many tiles are in use.
    """

    rows: torch.Tensor
    tile_experts: torch.Tensor
    num_tiles: torch.Tensor
    block_m: int
    top_k: int


def plan_tiles(experts: torch.Tensor, num_experts: int, block_m: int) -> Plan:
    """Returns the rows of `experts` (num_tokens, top_k) sorted by expert, in order within an expert.

    Raises: ValueError if experts is no contiguous int32 matrix, or block_m no power of two.
    """
    if experts.ndim != 2 or experts.dtype != torch.int32 or not experts.is_contiguous():
        raise ValueError(f"expected contiguous int32 experts, got {experts.dtype} {tuple(experts.shape)}")
    if block_m < 1 or block_m & (block_m - 1):
        raise ValueError(f"block_m must be a power of two, got {block_m}")
    num_rows = experts.numel()
    max_tiles = min(num_rows, num_experts) + num_rows // block_m
    sizes = (num_experts, max_tiles * block_m, max_tiles, 1)
    counts, rows, tile_experts, num_tiles = (
        torch.empty(size, dtype=torch.int32, device=experts.device) for size in sizes
    )
    _count_kernel[(num_experts,)](experts, counts, num_rows, BLOCK=BLOCK, num_warps=8)
    _place_kernel[(num_experts,)](
        experts, counts, rows, tile_experts, num_tiles, num_rows, max_tiles,
        BLOCK_M=block_m, BLOCK_EXPERTS=triton.next_power_of_2(num_experts), BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return Plan(rows, tile_experts, num_tiles, block_m, experts.shape[1])


def launch_work(num_rows: int) -> ops.Op:
    """Returns the bytes of `plan_tiles` of int32 rows: read twice, written once; experts re-read from L2."""
    return ops.elementwise(
        "plan_tiles", num_read=2 * num_rows, num_written=num_rows, dtype="fp32", num_kernels=2
    )
