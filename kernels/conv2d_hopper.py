"""Convolution for Hopper, copies and products in warps of their own: `conv2d` launches it.

Shapes as there, channels in whole steps of 64. A stride must divide the image's sides: seen as (batch,
height / stride, stride, width / stride, stride * channels), it has every tap's pixels in one box. One warp
copies boxes of pixels and filters into a ring of tiles; each of two or three warpgroups multiplies its own
box with the filters that all share. Three boxes of 64 pixels and 128 filters make a tile of 192 x 128, whose
number fills whole waves of SMs on feature maps where powers of two leave half a wave over. The copies run
ahead over the end of a tile, so that only its epilogue is not hidden.
Papers: cuDNN, arXiv 1410.0759, section 3 (implicit im2col); warp specialisation as in CUTLASS's
`sm90_mma_tma_gmma_ss_warpspecialized` (github.com/NVIDIA/cutlass).
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
from .hopper import CONSUMER_REGISTERS, PRODUCER_REGISTERS, SHARED_BYTES, cta_barrier, is_hopper
from .tuning import Config, num_sms

BLOCK_K = 64  # channels of a step: 128 bytes of 16-bit channels, the widest swizzle of shared memory


@gluon.jit
def _box_origin(box, boxes_h, boxes_w, BOX_N: gl.constexpr, BOX_H: gl.constexpr, BOX_W: gl.constexpr):
    """First image, row and column of a box; beyond the last box the image lies outside the batch."""
    return box // (boxes_h * boxes_w) * BOX_N, box // boxes_w % boxes_h * BOX_H, box % boxes_w * BOX_W


@gluon.jit
def _produce(
    x_desc, w_desc, pixels, filters, full, empty,
    num_m_tiles, num_n_tiles, boxes_h, boxes_w, in_channels, padding,
    KERNEL_H: gl.constexpr, KERNEL_W: gl.constexpr, STRIDE: gl.constexpr,
    BOX_N: gl.constexpr, BOX_H: gl.constexpr, BOX_W: gl.constexpr,
    CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
    GROUP_M: gl.constexpr,
):  # fmt: skip
    """Copies, tile by tile and tap by tap, as far ahead as the ring has room.

    Tap t of a line reads pixel STRIDE * x + t - padding: place (t - padding) % STRIDE of group
    x + (t - padding) // STRIDE.
    """
    ROWS: gl.constexpr = BOX_N * BOX_H * BOX_W
    STEP_BYTES: gl.constexpr = (CONSUMERS * ROWS + BLOCK_N) * BLOCK_K * x_desc.dtype.primitive_bitwidth // 8
    slot = 0
    phase = 1
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        first = pid_m * CONSUMERS
        image0, y0, x0 = _box_origin(first, boxes_h, boxes_w, BOX_N, BOX_H, BOX_W)
        image1, y1, x1 = _box_origin(first + 1, boxes_h, boxes_w, BOX_N, BOX_H, BOX_W)
        image2, y2, x2 = _box_origin(first + 2, boxes_h, boxes_w, BOX_N, BOX_H, BOX_W)
        for tap in range(KERNEL_H * KERNEL_W):
            # A whole number of groups more, so that nothing negative is divided.
            from_y = tap // KERNEL_W + padding * (STRIDE - 1)
            from_x = tap % KERNEL_W + padding * (STRIDE - 1)
            shift_y, place_y = from_y // STRIDE - padding, from_y % STRIDE
            shift_x, first_channel = from_x // STRIDE - padding, from_x % STRIDE * in_channels
            for channel in range(0, in_channels, BLOCK_K):
                ready = full.index(slot)
                mbarrier.wait(empty.index(slot), phase)
                mbarrier.expect(ready, STEP_BYTES)
                tma.async_copy_global_to_shared(
                    w_desc, [pid_n * BLOCK_N, tap * in_channels + channel], ready, filters.index(slot)
                )
                tma.async_copy_global_to_shared(
                    x_desc, [image0, y0 + shift_y, place_y, x0 + shift_x, first_channel + channel], ready,
                    pixels.index(slot * CONSUMERS),
                )  # fmt: skip
                tma.async_copy_global_to_shared(
                    x_desc, [image1, y1 + shift_y, place_y, x1 + shift_x, first_channel + channel], ready,
                    pixels.index(slot * CONSUMERS + 1),
                )  # fmt: skip
                if CONSUMERS == 3:
                    tma.async_copy_global_to_shared(
                        x_desc, [image2, y2 + shift_y, place_y, x2 + shift_x, first_channel + channel], ready,
                        pixels.index(slot * CONSUMERS + 2),
                    )  # fmt: skip
                slot += 1
                if slot == STAGES:
                    slot = 0
                    phase ^= 1


@gluon.jit
def _consume(
    out_desc, bias_ptr, pixels, filters, staging, full, empty,
    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
    HAS_BIAS: gl.constexpr, BOX_N: gl.constexpr, BOX_H: gl.constexpr, BOX_W: gl.constexpr,
    CONSUMERS: gl.constexpr, CONSUMER: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr,
    STAGES: gl.constexpr, GROUP_M: gl.constexpr,
):  # fmt: skip
    """Multiplies box CONSUMER of every tile; one product is in flight while the next tiles are awaited."""
    ROWS: gl.constexpr = BOX_N * BOX_H * BOX_W
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
    )
    operand_layout: gl.constexpr = filters.layout
    dtype: gl.constexpr = out_desc.dtype
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), num_m_tiles * num_n_tiles, gl.num_programs(0)):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        acc = gl.zeros((ROWS, BLOCK_N), gl.float32, layout)
        for step in range(num_steps):
            mbarrier.wait(full.index(slot), phase)
            box = pixels.index(slot * CONSUMERS + CONSUMER)._reinterpret(
                dtype, [ROWS, BLOCK_K], operand_layout
            )
            acc = warpgroup_mma(box, filters.index(slot).permute((1, 0)), acc, is_async=True)
            acc = warpgroup_mma_wait(1, deps=[acc])
            cta_barrier()
            mbarrier.arrive(empty.index((slot + STAGES - 1) % STAGES), pred=step > 0)
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        acc = warpgroup_mma_wait(0, deps=[acc])
        # The copy out of the last tile's results has long left the staging buffer: its wait costs nothing.
        tma.store_wait(0)
        cta_barrier()
        mbarrier.arrive(empty.index((slot + STAGES - 1) % STAGES))
        if HAS_BIAS:
            columns = pid_n * BLOCK_N + gl.arange(0, BLOCK_N, gl.SliceLayout(0, layout))
            bias = gl.load(bias_ptr + columns, mask=columns < out_channels, other=0.0)
            acc += bias.to(gl.float32)[None, :]
        staging._reinterpret(dtype, [ROWS, BLOCK_N], operand_layout).store(acc.to(dtype))
        fence_async_shared()
        cta_barrier()
        image, y, x = _box_origin(pid_m * CONSUMERS + CONSUMER, boxes_h, boxes_w, BOX_N, BOX_H, BOX_W)
        tma.async_copy_shared_to_global(out_desc, [image, y, x, pid_n * BLOCK_N], staging)
    tma.store_wait(0)


@gluon.jit
def _conv_hopper_kernel(
    x_desc, w_desc, out_desc, bias_ptr,
    # dimensions
    num_m_tiles, num_n_tiles, boxes_h, boxes_w, in_channels, out_channels, padding,
    HAS_BIAS: gl.constexpr, KERNEL_H: gl.constexpr, KERNEL_W: gl.constexpr, STRIDE: gl.constexpr,
    BOX_N: gl.constexpr, BOX_H: gl.constexpr, BOX_W: gl.constexpr,
    # meta-parameters
    CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr, STAGES: gl.constexpr,
    GROUP_M: gl.constexpr, PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """x (batch, rows, STRIDE, columns, STRIDE * in_channels), w (out_channels, taps * in_channels), out
    (batch, rows, columns, out_channels).
    """
    dtype: gl.constexpr = x_desc.dtype
    pixels = gl.allocate_shared_memory(
        dtype, [STAGES * CONSUMERS, BOX_N, BOX_H, 1, BOX_W, BLOCK_K], x_desc.layout
    )
    filters = gl.allocate_shared_memory(dtype, [STAGES, BLOCK_N, BLOCK_K], w_desc.layout)
    staging = gl.allocate_shared_memory(dtype, [CONSUMERS, BOX_N, BOX_H, BOX_W, BLOCK_N], out_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=CONSUMERS)
    fence_async_shared()
    num_steps = KERNEL_H * KERNEL_W * gl.cdiv(in_channels, BLOCK_K)
    if CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (
                    out_desc, bias_ptr, pixels, filters, staging.index(0), full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
                    HAS_BIAS, BOX_N, BOX_H, BOX_W, CONSUMERS, 0, BLOCK_N, BLOCK_K, STAGES, GROUP_M,
                )),
                (_consume, (
                    out_desc, bias_ptr, pixels, filters, staging.index(1), full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
                    HAS_BIAS, BOX_N, BOX_H, BOX_W, CONSUMERS, 1, BLOCK_N, BLOCK_K, STAGES, GROUP_M,
                )),
                (_produce, (
                    x_desc, w_desc, pixels, filters, full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, in_channels, padding,
                    KERNEL_H, KERNEL_W, STRIDE, BOX_N, BOX_H, BOX_W, CONSUMERS, BLOCK_N, BLOCK_K, STAGES,
                    GROUP_M,
                )),
            ],
            [4, 1], [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (_consume, (
                    out_desc, bias_ptr, pixels, filters, staging.index(0), full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
                    HAS_BIAS, BOX_N, BOX_H, BOX_W, CONSUMERS, 0, BLOCK_N, BLOCK_K, STAGES, GROUP_M,
                )),
                (_consume, (
                    out_desc, bias_ptr, pixels, filters, staging.index(1), full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
                    HAS_BIAS, BOX_N, BOX_H, BOX_W, CONSUMERS, 1, BLOCK_N, BLOCK_K, STAGES, GROUP_M,
                )),
                (_consume, (
                    out_desc, bias_ptr, pixels, filters, staging.index(2), full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, out_channels, num_steps,
                    HAS_BIAS, BOX_N, BOX_H, BOX_W, CONSUMERS, 2, BLOCK_N, BLOCK_K, STAGES, GROUP_M,
                )),
                (_produce, (
                    x_desc, w_desc, pixels, filters, full, empty,
                    num_m_tiles, num_n_tiles, boxes_h, boxes_w, in_channels, padding,
                    KERNEL_H, KERNEL_W, STRIDE, BOX_N, BOX_H, BOX_W, CONSUMERS, BLOCK_N, BLOCK_K, STAGES,
                    GROUP_M,
                )),
            ],
            [4, 4, 1], [CONSUMER_REGISTERS, CONSUMER_REGISTERS, PRODUCER_REGISTERS],
        )  # fmt: skip


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries: (consumers, pixels of each, filters), all that fits."""
    return [
        _config(*tile, group_m=group_m)
        for tile in ((3, 64, 128), (2, 64, 128), (2, 128, 128), (2, 64, 256), (3, 64, 64))
        for group_m in (1, 8)
    ]


def _config(consumers: int, rows: int, block_n: int, *, group_m: int) -> Config:
    """Returns the configuration with as many stages as fit beside the results' staging buffer."""
    stage_bytes = (consumers * rows + block_n) * BLOCK_K * 2
    stages = (SHARED_BYTES - consumers * rows * block_n * 2) // stage_bytes
    meta = {"CONSUMERS": consumers, "ROWS": rows, "BLOCK_N": block_n, "STAGES": stages, "GROUP_M": group_m}
    return Config(meta, num_warps=4)


# The configuration for a shape that nobody tuned.
DEFAULT = _config(3, 64, 128, group_m=8)


def is_supported(x: torch.Tensor, stride: int) -> bool:
    """Returns whether this kernel serves: bf16 or fp16 on Hopper, and a stride that cuts x evenly."""
    is_even = x.shape[1] % stride == 0 and x.shape[2] % stride == 0 and x.shape[3] % BLOCK_K == 0
    is_sixteen_bit = x.dtype in (torch.bfloat16, torch.float16)
    return x.device.type == "cuda" and is_hopper() and is_sixteen_bit and (stride == 1 or is_even)


def launch_hopper(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, *,
    stride: int, padding: int, box: tuple[int, int, int], config: Config,
) -> None:  # fmt: skip
    """Launches the kernel into `out`; `box` are the images, rows and columns that one consumer takes."""
    batch, out_h, out_w, out_channels = out.shape
    _, kernel_h, kernel_w, in_channels = weight.shape
    height, width = x.shape[1:3]
    grouped = x.view(batch, height // stride, stride, width // stride, stride * in_channels)
    meta = {name: value for name, value in config.meta.items() if name != "ROWS"}
    block_n, consumers = meta["BLOCK_N"], meta["CONSUMERS"]
    boxes = [triton.cdiv(size, side) for size, side in zip((batch, out_h, out_w), box, strict=True)]
    num_m_tiles = triton.cdiv(boxes[0] * boxes[1] * boxes[2], consumers)
    num_n_tiles = triton.cdiv(out_channels, block_n)
    strided, boxed, matrix = (
        gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=r) for r in (5, 4, 2)
    )
    _conv_hopper_kernel[(min(num_sms(x.device), num_m_tiles * num_n_tiles),)](
        TensorDescriptor.from_tensor(grouped, [*box[:2], 1, box[2], BLOCK_K], strided),
        TensorDescriptor.from_tensor(weight.view(out_channels, -1), [block_n, BLOCK_K], matrix),
        TensorDescriptor.from_tensor(out, [*box, block_n], boxed),
        bias, num_m_tiles, num_n_tiles, boxes[1], boxes[2], in_channels, out_channels, padding,
        HAS_BIAS=bias is not None, KERNEL_H=kernel_h, KERNEL_W=kernel_w, STRIDE=stride,
        BOX_N=box[0], BOX_H=box[1], BOX_W=box[2], BLOCK_K=BLOCK_K, PRODUCER_REGISTERS=PRODUCER_REGISTERS,
        CONSUMER_REGISTERS=CONSUMER_REGISTERS[consumers], num_warps=config.num_warps, **meta,
    )  # fmt: skip
