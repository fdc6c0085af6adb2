"""8-bit products for Hopper, copies and products in warps of their own: `gemm_quantized` launches them.

Shapes: a (m, k) and b (n, k) in fp8 e4m3 or int8, out (m, n) in bf16 or fp16. One warp copies boxes of 64
rows of a and of 128 rows of b into a ring. Each of two warpgroups keeps a box of a in registers and
multiplies it with both boxes of b that the tile has: so shared memory, whose bandwidth would bound the
products, is read least. `gemm_block_scaled_hopper` builds on the same ring.
Papers: warp specialisation as in CUTLASS's `sm90_mma_tma_gmma_ss_warpspecialized`
(github.com/NVIDIA/cutlass).
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

from .gemm import tile_origin
from .hopper import CONSUMER_REGISTERS, PRODUCER_REGISTERS, SHARED_BYTES, cta_barrier
from .tuning import Config, num_sms

ROWS, COLUMNS = 64, 128  # boxes of a and of b: one warpgroup's product
BLOCK_K = 128  # bytes of a step: the widest swizzle of shared memory, and one block of scales


@gluon.jit
def copy_boxes(
    a_desc, b_desc, a_ring, b_ring, full, empty, num_m_tiles, num_n_tiles, k_steps,
    A_BOXES: gl.constexpr, B_BOXES: gl.constexpr, STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """Copies, tile by tile, as far ahead as the ring has room."""
    ROWS: gl.constexpr = a_desc.block_shape[0]
    COLUMNS: gl.constexpr = b_desc.block_shape[0]
    BLOCK_K: gl.constexpr = a_desc.block_shape[1]
    slot = 0
    phase = 1
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        for step in range(k_steps):
            ready = full.index(slot)
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(ready, (A_BOXES * ROWS + B_BOXES * COLUMNS) * BLOCK_K)
            for box in gl.static_range(B_BOXES):
                tma.async_copy_global_to_shared(
                    b_desc, [(pid_n * B_BOXES + box) * COLUMNS, step * BLOCK_K], ready,
                    b_ring.index(slot * B_BOXES + box),
                )  # fmt: skip
            for box in gl.static_range(A_BOXES):
                tma.async_copy_global_to_shared(
                    a_desc, [(pid_m * A_BOXES + box) * ROWS, step * BLOCK_K], ready,
                    a_ring.index(slot * A_BOXES + box),
                )  # fmt: skip
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1


@gluon.jit
def store_box(c_desc, staging, value, row, column):
    """Stores a box of results through shared memory; the copy out of the last one ends first."""
    tma.store_wait(0)
    cta_barrier()
    staging.store(value.to(c_desc.dtype))
    fence_async_shared()
    cta_barrier()
    tma.async_copy_shared_to_global(c_desc, [row, column], staging)


@gluon.jit
def _scaled(
    acc, row_scale, col_scale_ptr, bias_ptr, off_n, n,
    HAS_BIAS: gl.constexpr, WIDTH: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    columns = off_n + gl.arange(0, WIDTH, gl.SliceLayout(0, layout))
    col_scale = gl.load(col_scale_ptr + columns, mask=columns < n, other=0.0)
    scaled = acc.to(gl.float32) * row_scale[:, None] * col_scale[None, :]
    if HAS_BIAS:
        scaled += gl.load(bias_ptr + columns, mask=columns < n, other=0.0).to(gl.float32)[None, :]
    return scaled


@gluon.jit
def _multiply_scaled(
    c_desc, row_scale_ptr, col_scale_ptr, bias_ptr, a_ring, b_ring, staging, full, empty,
    num_m_tiles, num_n_tiles, k_steps, m, n,
    HAS_BIAS: gl.constexpr, ACC_DTYPE: gl.constexpr, BOX: gl.constexpr, STAGES: gl.constexpr,
    GROUP_M: gl.constexpr,
):  # fmt: skip
    """Multiplies box BOX of every tile's 2; while one warpgroup loads its rows, the other multiplies."""
    ROWS: gl.constexpr = c_desc.block_shape[0]
    COLUMNS: gl.constexpr = c_desc.block_shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 32]
    )
    a_layout: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=layout, k_width=4)
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        left = gl.zeros((ROWS, COLUMNS), ACC_DTYPE, layout)
        right = gl.zeros((ROWS, COLUMNS), ACC_DTYPE, layout)
        for _ in range(k_steps):
            mbarrier.wait(full.index(slot), phase)
            # Both products share these rows: from registers they cost shared memory one read, not two.
            a = a_ring.index(slot * 2 + BOX).load(a_layout)
            left = warpgroup_mma(a, b_ring.index(slot * 2).permute((1, 0)), left, is_async=True)
            right = warpgroup_mma(a, b_ring.index(slot * 2 + 1).permute((1, 0)), right, is_async=True)
            left, right = warpgroup_mma_wait(0, deps=[left, right])
            cta_barrier()
            mbarrier.arrive(empty.index(slot))
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        row, column = (pid_m * 2 + BOX) * ROWS, pid_n * 2 * COLUMNS
        rows = row + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
        row_scale = gl.load(row_scale_ptr + rows, mask=rows < m, other=0.0)
        left = _scaled(left, row_scale, col_scale_ptr, bias_ptr, column, n, HAS_BIAS, COLUMNS, layout)
        store_box(c_desc, staging, left, row, column)
        column += COLUMNS
        right = _scaled(right, row_scale, col_scale_ptr, bias_ptr, column, n, HAS_BIAS, COLUMNS, layout)
        store_box(c_desc, staging, right, row, column)
    tma.store_wait(0)


@gluon.jit
def make_ring(a_desc, b_desc, A_BOXES: gl.constexpr, B_BOXES: gl.constexpr, STAGES: gl.constexpr):
    """Allocates the tiles of all stages and their barriers: copied into (full), used up (empty).

    Each of A_BOXES warpgroups uses every stage up.
    """
    a_ring = gl.allocate_shared_memory(
        a_desc.dtype, [STAGES * A_BOXES, a_desc.block_shape[0], a_desc.block_shape[1]], a_desc.layout
    )
    b_ring = gl.allocate_shared_memory(
        b_desc.dtype, [STAGES * B_BOXES, b_desc.block_shape[0], b_desc.block_shape[1]], b_desc.layout
    )
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=A_BOXES)
    fence_async_shared()
    return a_ring, b_ring, full, empty


@gluon.jit
def _scaled_hopper_kernel(
    a_desc, b_desc, c_desc, row_scale_ptr, col_scale_ptr, bias_ptr,
    # dimensions
    num_m_tiles, num_n_tiles, k_steps, m, n,
    HAS_BIAS: gl.constexpr, ACC_DTYPE: gl.constexpr,
    # meta-parameters
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """a (m, k), b (n, k), c (m, n), row_scale (m,), col_scale (n,): tiles of 2 boxes by 2."""
    a_ring, b_ring, full, empty = make_ring(a_desc, b_desc, 2, 2, STAGES)
    staging = gl.allocate_shared_memory(
        c_desc.dtype, [2, c_desc.block_shape[0], c_desc.block_shape[1]], c_desc.layout
    )
    gl.warp_specialize(
        [
            (_multiply_scaled, (
                c_desc, row_scale_ptr, col_scale_ptr, bias_ptr, a_ring, b_ring, staging.index(0), full,
                empty, num_m_tiles, num_n_tiles, k_steps, m, n, HAS_BIAS, ACC_DTYPE, 0, STAGES, GROUP_M,
            )),
            (_multiply_scaled, (
                c_desc, row_scale_ptr, col_scale_ptr, bias_ptr, a_ring, b_ring, staging.index(1), full,
                empty, num_m_tiles, num_n_tiles, k_steps, m, n, HAS_BIAS, ACC_DTYPE, 1, STAGES, GROUP_M,
            )),
            (copy_boxes, (
                a_desc, b_desc, a_ring, b_ring, full, empty, num_m_tiles, num_n_tiles, k_steps,
                2, 2, STAGES, GROUP_M,
            )),
        ],
        [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


def stages_that_fit(a_boxes: int, b_boxes: int) -> int:
    """Returns how many stages of tiles of so many boxes fit beside a staging buffer for every box of a."""
    staging = a_boxes * ROWS * COLUMNS * 2
    return (SHARED_BYTES - staging) // ((a_boxes * ROWS + b_boxes * COLUMNS) * BLOCK_K)


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries."""
    stages = stages_that_fit(2, 2)
    return [Config({"IS_HOPPER": True, "STAGES": stages, "GROUP_M": group_m}) for group_m in (4, 8, 16)]


def descriptors(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor
) -> tuple[TensorDescriptor, TensorDescriptor, TensorDescriptor]:
    """Returns what the copy engine needs to know of a, b and out."""
    codes, results = (gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=bits) for bits in (8, 16))
    return (
        TensorDescriptor.from_tensor(a, [ROWS, BLOCK_K], codes),
        TensorDescriptor.from_tensor(b, [COLUMNS, BLOCK_K], codes),
        TensorDescriptor.from_tensor(out, [ROWS, COLUMNS], results),
    )


def launch_scaled(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, config: Config, *, bias: torch.Tensor | None,
    row_scale: torch.Tensor, col_scale: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Launches the product into `out` (m, n); scales are fp32, (m,) and (n,)."""
    m, n = out.shape
    num_m_tiles, num_n_tiles = triton.cdiv(m, 2 * ROWS), triton.cdiv(n, 2 * COLUMNS)
    _scaled_hopper_kernel[(min(num_sms(a.device), num_m_tiles * num_n_tiles),)](
        *descriptors(a, b, out), row_scale, col_scale, bias,
        num_m_tiles, num_n_tiles, triton.cdiv(a.shape[1], BLOCK_K), m, n,
        HAS_BIAS=bias is not None, ACC_DTYPE=gl.int32 if a.dtype == torch.int8 else gl.float32,
        STAGES=config.meta["STAGES"], GROUP_M=config.meta["GROUP_M"], PRODUCER_REGISTERS=PRODUCER_REGISTERS,
        CONSUMER_REGISTERS=CONSUMER_REGISTERS[2], num_warps=config.num_warps,
    )  # fmt: skip
    return out
