"""fp8 products with fine-grained scales for Hopper: `gemm_block_scaled` launches them.

Shapes as there. One warp copies, as in `gemm_hopper`; each of three warpgroups multiplies 64 rows with the
128 columns that all share, and adds its partial sums, scaled, on the vector units: while one does so, the
others keep the tensor cores busy, which a loop in step cannot.
Papers: DeepSeek-V3, arXiv 2412.19437, section 3.3.2 and figure 7 (promotion to fp32 overlapped between
warpgroups).
"""

from __future__ import annotations

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from .gemm import tile_origin
from .gemm_hopper import (
    BLOCK_K,
    COLUMNS,
    ROWS,
    copy_boxes,
    descriptors,
    make_ring,
    stages_that_fit,
    store_box,
)
from .hopper import CONSUMER_REGISTERS, PRODUCER_REGISTERS, cta_barrier
from .tuning import Config, num_sms


@gluon.jit
def _multiply_promoted(
    c_desc, a_scale_ptr, b_scale_ptr, a_ring, b_ring, staging, full, empty,
    num_m_tiles, num_n_tiles, k_steps, m, stride_as_m, stride_as_k, stride_bs_n,
    BOXES: gl.constexpr, BOX: gl.constexpr, STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """Multiplies box BOX of every tile, scaling each step's sums; scales are fetched one step ahead."""
    ROWS: gl.constexpr = c_desc.block_shape[0]
    COLUMNS: gl.constexpr = c_desc.block_shape[1]
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 32]
    )
    zeros = gl.zeros((ROWS, COLUMNS), gl.float32, layout)
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        row = (pid_m * BOXES + BOX) * ROWS
        rows = row + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
        a_scales = a_scale_ptr + rows * stride_as_m
        b_scales = b_scale_ptr + pid_n * stride_bs_n
        next_scale = gl.load(a_scales, mask=rows < m, other=0.0) * gl.load(b_scales)
        acc = gl.zeros((ROWS, COLUMNS), gl.float32, layout)
        for step in range(k_steps):
            scale = next_scale
            mbarrier.wait(full.index(slot), phase)
            partial = warpgroup_mma(
                a_ring.index(slot * BOXES + BOX), b_ring.index(slot).permute((1, 0)), zeros,
                use_acc=False, is_async=True,
            )  # fmt: skip
            ahead = gl.minimum(step + 1, k_steps - 1)
            next_a = gl.load(a_scales + ahead * stride_as_k, mask=rows < m, other=0.0)
            next_scale = next_a * gl.load(b_scales + ahead)
            partial = warpgroup_mma_wait(0, deps=[partial])
            cta_barrier()
            mbarrier.arrive(empty.index(slot))
            acc += partial * scale[:, None]
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        store_box(c_desc, staging, acc, row, pid_n * COLUMNS)
    tma.store_wait(0)


@gluon.jit
def _block_scaled_hopper_kernel(
    a_desc, b_desc, c_desc, a_scale_ptr, b_scale_ptr,
    # dimensions
    num_m_tiles, num_n_tiles, k_steps, m,
    # strides
    stride_as_m, stride_as_k, stride_bs_n,
    # meta-parameters
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """a (m, k), b (n, k), c (m, n), a_scale (m, k / 128), b_scale (n / 128, k / 128): tiles of 192 x 128."""
    a_ring, b_ring, full, empty = make_ring(a_desc, b_desc, 3, 1, STAGES)
    staging = gl.allocate_shared_memory(
        c_desc.dtype, [3, c_desc.block_shape[0], c_desc.block_shape[1]], c_desc.layout
    )
    gl.warp_specialize(
        [
            (_multiply_promoted, (
                c_desc, a_scale_ptr, b_scale_ptr, a_ring, b_ring, staging.index(0), full, empty,
                num_m_tiles, num_n_tiles, k_steps, m, stride_as_m, stride_as_k, stride_bs_n,
                3, 0, STAGES, GROUP_M,
            )),
            (_multiply_promoted, (
                c_desc, a_scale_ptr, b_scale_ptr, a_ring, b_ring, staging.index(1), full, empty,
                num_m_tiles, num_n_tiles, k_steps, m, stride_as_m, stride_as_k, stride_bs_n,
                3, 1, STAGES, GROUP_M,
            )),
            (_multiply_promoted, (
                c_desc, a_scale_ptr, b_scale_ptr, a_ring, b_ring, staging.index(2), full, empty,
                num_m_tiles, num_n_tiles, k_steps, m, stride_as_m, stride_as_k, stride_bs_n,
                3, 2, STAGES, GROUP_M,
            )),
            (copy_boxes, (
                a_desc, b_desc, a_ring, b_ring, full, empty, num_m_tiles, num_n_tiles, k_steps,
                3, 1, STAGES, GROUP_M,
            )),
        ],
        [4, 4, 1], [CONSUMER_REGISTERS, CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries."""
    stages = stages_that_fit(3, 1)
    return [Config({"IS_HOPPER": True, "STAGES": stages, "GROUP_M": group_m}) for group_m in (4, 8, 16)]


def launch_block_scaled(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor, out: torch.Tensor,
    config: Config,
) -> torch.Tensor:  # fmt: skip
    """Launches the product into `out` (m, n)."""
    m, n = out.shape
    num_m_tiles, num_n_tiles = triton.cdiv(m, 3 * ROWS), triton.cdiv(n, COLUMNS)
    _block_scaled_hopper_kernel[(min(num_sms(a.device), num_m_tiles * num_n_tiles),)](
        *descriptors(a, b, out), a_scale, b_scale,
        num_m_tiles, num_n_tiles, a.shape[1] // BLOCK_K, m,
        a_scale.stride(0), a_scale.stride(1), b_scale.stride(0),
        STAGES=config.meta["STAGES"], GROUP_M=config.meta["GROUP_M"], PRODUCER_REGISTERS=PRODUCER_REGISTERS,
        CONSUMER_REGISTERS=CONSUMER_REGISTERS[3], num_warps=config.num_warps,
    )  # fmt: skip
    return out
