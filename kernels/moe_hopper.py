"""Grouped products for Hopper, copies and products in warps of their own: `moe.grouped_matmul` launches them.

Shapes as there, in bf16 or fp16, in tiles of 128 rows. The rows are first copied into the order of the plan,
so that the copy engine can fetch them; over many columns that costs little. Then one warp copies boxes of 64
rows and of 128 columns into a ring, and each of two warpgroups keeps a box of rows in registers and
multiplies it with two boxes of columns. Results go straight to their rows' own places.
Paper: MegaBlocks, arXiv 2211.15841.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .gemm import tile_origin
from .gemm_hopper import COLUMNS, ROWS, make_ring, stages_that_fit
from .hopper import CONSUMER_REGISTERS, PRODUCER_REGISTERS, cta_barrier, is_hopper
from .moe_plan import Plan
from .tuning import Config, num_sms

BLOCK_M = 2 * ROWS
BLOCK_K = 64  # 128 bytes: the widest swizzle of shared memory


@triton.jit
def _sort_rows_kernel(x_ptr, sorted_ptr, rows_ptr, num_rows, k, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (places,): copies the row that the plan puts there; padding, whose results go nowhere, stays."""
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(rows_ptr + place)
    if row < num_rows:
        source = x_ptr + (row // TOP_K).to(tl.int64) * k
        for start in tl.range(0, k, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            values = tl.load(source + columns, mask=columns < k)
            tl.store(sorted_ptr + place * k + columns, values, mask=columns < k)


@gluon.jit
def _copy_boxes(
    x_desc, w_desc, x_ring, w_ring, full, empty, tile_experts_ptr, num_m_tiles, num_n_tiles, n, k,
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """Copies, tile by tile, as far ahead as the ring has room; what it copies beyond n is never stored."""
    ROWS: gl.constexpr = x_desc.block_shape[0]
    COLUMNS: gl.constexpr = w_desc.block_shape[0]
    BLOCK_K: gl.constexpr = x_desc.block_shape[1]
    slot = 0
    phase = 1
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        column = gl.load(tile_experts_ptr + pid_m) * n + pid_n * 2 * COLUMNS
        for start in range(0, k, BLOCK_K):
            ready = full.index(slot)
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(ready, (2 * ROWS + 2 * COLUMNS) * BLOCK_K * 2)
            for box in gl.static_range(2):
                tma.async_copy_global_to_shared(
                    w_desc, [column + box * COLUMNS, start], ready, w_ring.index(slot * 2 + box)
                )
                tma.async_copy_global_to_shared(
                    x_desc, [(pid_m * 2 + box) * ROWS, start], ready, x_ring.index(slot * 2 + box)
                )
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1


@gluon.jit
def _multiply(
    out_ptr, rows_ptr, x_ring, w_ring, staging, full, empty, num_m_tiles, num_n_tiles, num_rows, n, k,
    BOX: gl.constexpr, STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """Multiplies box BOX of every tile's 2; while one warpgroup loads its rows, the other multiplies."""
    ROWS: gl.constexpr = x_ring.shape[1]
    COLUMNS: gl.constexpr = w_ring.shape[1]
    BLOCK_K: gl.constexpr = x_ring.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 16]
    )
    x_layout: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=layout, k_width=2)
    # 16 bytes a thread, so that a warp stores whole lines of 128 columns.
    store_layout: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        left = gl.zeros((ROWS, COLUMNS), gl.float32, layout)
        right = gl.zeros((ROWS, COLUMNS), gl.float32, layout)
        for _ in range(0, k, BLOCK_K):
            mbarrier.wait(full.index(slot), phase)
            x = x_ring.index(slot * 2 + BOX).load(x_layout)
            left = warpgroup_mma(x, w_ring.index(slot * 2).permute((1, 0)), left, is_async=True)
            right = warpgroup_mma(x, w_ring.index(slot * 2 + 1).permute((1, 0)), right, is_async=True)
            left, right = warpgroup_mma_wait(0, deps=[left, right])
            cta_barrier()
            mbarrier.arrive(empty.index(slot))
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        places = (pid_m * 2 + BOX) * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, store_layout))
        rows = gl.load(rows_ptr + places)
        columns = pid_n * 2 * COLUMNS + gl.arange(0, COLUMNS, gl.SliceLayout(0, store_layout))
        targets = out_ptr + rows.to(gl.int64)[:, None] * n + columns[None, :]
        is_row = (rows < num_rows)[:, None]
        staging.store(left.to(staging.dtype))
        gl.store(targets, staging.load(store_layout), mask=is_row & (columns < n)[None, :])
        staging.store(right.to(staging.dtype))
        is_column = columns + COLUMNS < n
        gl.store(targets + COLUMNS, staging.load(store_layout), mask=is_row & is_column[None, :])


@gluon.jit
def _grouped_hopper_kernel(
    x_desc, w_desc, out_ptr, rows_ptr, tile_experts_ptr, num_tiles_ptr,
    # dimensions
    num_n_tiles, num_rows, n, k,
    # meta-parameters
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """x (places, k) in the plan's order, w (num_experts * n, k), out (num_rows, n)."""
    num_m_tiles = gl.load(num_tiles_ptr)
    x_ring, w_ring, full, empty = make_ring(x_desc, w_desc, 2, 2, STAGES)
    staging = gl.allocate_shared_memory(
        x_desc.dtype, [2, x_desc.block_shape[0], w_desc.block_shape[0]], x_desc.layout
    )
    gl.warp_specialize(
        [
            (_multiply, (
                out_ptr, rows_ptr, x_ring, w_ring, staging.index(0), full, empty,
                num_m_tiles, num_n_tiles, num_rows, n, k, 0, STAGES, GROUP_M,
            )),
            (_multiply, (
                out_ptr, rows_ptr, x_ring, w_ring, staging.index(1), full, empty,
                num_m_tiles, num_n_tiles, num_rows, n, k, 1, STAGES, GROUP_M,
            )),
            (_copy_boxes, (
                x_desc, w_desc, x_ring, w_ring, full, empty, tile_experts_ptr,
                num_m_tiles, num_n_tiles, n, k, STAGES, GROUP_M,
            )),
        ],
        [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


def candidates(block_m: int) -> list[Config]:
    """Returns the configurations that tuning tries on this GPU: none where the kernel does not serve."""
    if block_m != BLOCK_M or not is_hopper():
        return []
    stages = stages_that_fit(2, 2)
    return [Config({"IS_HOPPER": True, "STAGES": stages, "GROUP_M": group_m}) for group_m in (1, 4, 8, 16)]


def launch_hopper(
    x: torch.Tensor, w: torch.Tensor, plan: Plan, out: torch.Tensor, expansion: int, config: Config
) -> torch.Tensor:
    """Launches both kernels into `out` (num_rows, n); row r takes row r // expansion of x."""
    (num_experts, n, k), num_rows = w.shape, out.shape[0]
    places = plan.rows.numel()
    in_order = x.new_empty((places, k))
    _sort_rows_kernel[(places,)](x, in_order, plan.rows, num_rows, k, TOP_K=expansion, BLOCK=2048)
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16)
    num_n_tiles = triton.cdiv(n, 2 * COLUMNS)
    _grouped_hopper_kernel[(min(num_sms(x.device), plan.tile_experts.numel() * num_n_tiles),)](
        TensorDescriptor.from_tensor(in_order, [ROWS, BLOCK_K], layout),
        TensorDescriptor.from_tensor(w.view(num_experts * n, k), [COLUMNS, BLOCK_K], layout),
        out, plan.rows, plan.tile_experts, plan.num_tiles, num_n_tiles, num_rows, n, k,
        STAGES=config.meta["STAGES"], GROUP_M=config.meta["GROUP_M"], PRODUCER_REGISTERS=PRODUCER_REGISTERS,
        CONSUMER_REGISTERS=CONSUMER_REGISTERS[2], num_warps=config.num_warps,
    )  # fmt: skip
    return out
