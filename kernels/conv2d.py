"""Convolution as an implicit matrix product: patches are gathered on the fly, never written out.

Shapes: x (batch, height, width, in_channels) and weight (out_channels, kernel_h, kernel_w, in_channels), both with
channels last; out (batch, out_h, out_w, out_channels). The product is (batch * out_h * out_w) x out_channels, its depth
kernel_h * kernel_w * in_channels, walked tap by tap.
Papers: cuDNN, arXiv 1410.0759, section 3 (implicit im2col). A vision tower's patch embedding is the case where the
stride equals the kernel, so that no pixel repeats (arXiv 2010.11929).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .tuning import Config, tuned_config


@triton.jit
def _conv_kernel(
    x_ptr, w_ptr, bias_ptr, out_ptr,
    # dimensions
    num_pixels, height, width, in_channels, out_h, out_w, out_channels, stride, padding,
    HAS_BIAS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, FOLD_W: tl.constexpr,
    EVEN_CHANNELS: tl.constexpr, HAS_EDGES: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """Grid (tiles,): BLOCK_M output pixels by BLOCK_N output channels.

    FOLD_W neighbouring taps of a kernel row, which lie in one piece in x where no edge cuts it, are walked as one.
    """
    num_m_tiles = tl.cdiv(num_pixels, BLOCK_M)
    num_n_tiles = tl.cdiv(out_channels, BLOCK_N)
    tiles_per_group = GROUP_M * num_n_tiles
    tile = tl.program_id(0)
    first_m = (tile // tiles_per_group) * GROUP_M
    rows_in_group = tl.minimum(num_m_tiles - first_m, GROUP_M)
    pixels = (first_m + (tile % tiles_per_group) % rows_in_group) * BLOCK_M + tl.arange(0, BLOCK_M)
    filters = (tile % tiles_per_group) // rows_in_group * BLOCK_N + tl.arange(0, BLOCK_N)
    is_pixel = pixels < num_pixels
    image = pixels // (out_h * out_w)
    first_y = pixels // out_w % out_h * stride - padding
    first_x = pixels % out_w * stride - padding
    origins = ((image * height + first_y) * width + first_x) * in_channels
    depths = tl.arange(0, BLOCK_K)
    piece = FOLD_W * in_channels
    steps_per_piece = tl.cdiv(piece, BLOCK_K)
    PIECES_PER_ROW: tl.constexpr = KERNEL_W // FOLD_W
    w_rows = w_ptr + tl.minimum(filters, out_channels - 1)[:, None] * (KERNEL_H * KERNEL_W * in_channels)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in tl.range(0, KERNEL_H * PIECES_PER_ROW * steps_per_piece):
        tap = step // steps_per_piece
        channels = step % steps_per_piece * BLOCK_K + depths
        tap_y, tap_x = tap // PIECES_PER_ROW, tap % PIECES_PER_ROW
        sources = origins + (tap_y * width + tap_x) * in_channels
        is_source = is_pixel
        if HAS_EDGES:
            y, x_position = first_y + tap_y, first_x + tap_x
            is_source = is_source & (y >= 0) & (y < height) & (x_position >= 0) & (x_position < width)
        is_read = is_source[:, None]
        is_weight = (filters < out_channels)[:, None]
        if not EVEN_CHANNELS:
            is_read = is_read & (channels < piece)[None, :]
            is_weight = is_weight & (channels < piece)[None, :]
        a = tl.load(x_ptr + sources[:, None] + channels[None, :], mask=is_read, other=0.0)
        b = tl.load(w_rows + (tap * piece + channels)[None, :], mask=is_weight, other=0.0)
        acc = tl.dot(a, b.T, acc)
    is_filter = filters < out_channels
    if HAS_BIAS:
        acc += tl.load(bias_ptr + filters, mask=is_filter, other=0.0).to(tl.float32)[None, :]
    targets = out_ptr + pixels.to(tl.int64)[:, None] * out_channels + filters[None, :]
    tl.store(targets, acc.to(out_ptr.dtype.element_ty), mask=is_pixel[:, None] & is_filter[None, :])


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries."""
    return [
        Config({"BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_K": block_k, "GROUP_M": 8}, warps, stages)
        for bm, bn, warps in ((128, 128, 4), (128, 128, 8), (128, 64, 4), (64, 128, 4), (128, 256, 8), (256, 128, 8))
        for block_k in (32, 64)
        for stages in (3, 4, 5)
    ]


def default_config() -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    return Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "GROUP_M": 8}, 8, 3)


def conv2d(
    x: torch.Tensor, weight: torch.Tensor, *, bias: torch.Tensor | None = None, stride: int = 1, padding: int = 0,
    config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns the convolution (batch, out_h, out_w, out_channels), typed as x, accumulated in fp32.

    Raises: ValueError if shapes or dtypes do not fit, or x holds 2^31 elements or more.
    """
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[3] or x.dtype != weight.dtype:
        raise ValueError(f"expected channels last, got x {x.dtype} {x.shape} and weight {weight.dtype} {weight.shape}")
    if not (x.is_contiguous() and weight.is_contiguous()) or x.numel() >= 2**31:
        raise ValueError("x and weight must be contiguous, x of fewer than 2^31 elements")
    batch, height, width, in_channels = x.shape
    out_channels, kernel_h, kernel_w, _ = weight.shape
    out_h, out_w = ((size + 2 * padding - kernel) // stride + 1 for size, kernel in ((height, kernel_h), (width, kernel_w)))
    if out_h < 1 or out_w < 1 or stride < 1 or padding < 0:
        raise ValueError(f"a {kernel_h}x{kernel_w} kernel does not fit {height}x{width} padded by {padding}")
    out = torch.empty((batch, out_h, out_w, out_channels), dtype=x.dtype, device=x.device)
    shape = (batch * out_h * out_w, out_channels, in_channels, kernel_h * kernel_w)
    chosen = config or tuned_config("conv2d", DTYPE_NAMES[x.dtype], shape, x.device) or default_config()
    tiles = triton.cdiv(shape[0], chosen.meta["BLOCK_M"]) * triton.cdiv(out_channels, chosen.meta["BLOCK_N"])
    # Without padding no edge cuts a kernel row, so its taps are one piece of x.
    fold = kernel_w if padding == 0 else 1
    _conv_kernel[(tiles,)](
        x, weight, bias, out, shape[0], height, width, in_channels, out_h, out_w, out_channels, stride, padding,
        HAS_BIAS=bias is not None, KERNEL_H=kernel_h, KERNEL_W=kernel_w, FOLD_W=fold,
        EVEN_CHANNELS=fold * in_channels % chosen.meta["BLOCK_K"] == 0, HAS_EDGES=padding > 0,
        **chosen.launch_options(),
    )  # fmt: skip
    return out


def conv2d_oracle(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> torch.Tensor:
    """Returns what `conv2d` should, in float64."""
    channels_first = (tensor.double().permute(0, 3, 1, 2) for tensor in (x, weight))
    out = torch.nn.functional.conv2d(*channels_first, bias if bias is None else bias.double(), stride, padding)
    return out.permute(0, 2, 3, 1)


def launch_work(
    num_pixels: int, out_channels: int, in_channels: int, taps: int, dtype: torch.dtype, config: Config
) -> ops.Op:
    """Returns the FLOPs of `conv2d` and the bytes of its implicit product.

    SIMPLIFIED: reads every patch from HBM; effect: a 3x3 kernel with stride 1 counts x nine times, most hit L2.
    """
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(num_pixels, out_channels, taps * in_channels, DTYPE_NAMES[dtype], tile=tile, kind="conv2d")
