"""Convolution as an implicit matrix product: patches are gathered on the fly, never written out.

Shapes: x (batch, height, width, in_channels) and weight (out_channels, kernel_h, kernel_w, in_channels), both
with channels last; out (batch, out_h, out_w, out_channels). The product is (batch * out_h * out_w) x
out_channels, its depth kernel_h * kernel_w * in_channels, walked tap by tap. With stride 1 a tile is a box of
images, rows and columns: each tap is the same box, shifted, which the copy engine fetches and fills with
zeros beyond the edges. On Hopper so it is with strides that divide the image; others gather, and a 1 x 1
kernel is a plain product.
Papers: cuDNN, arXiv 1410.0759, section 3 (implicit im2col). A vision tower's patch embedding is the case
where the stride equals the kernel, so that no pixel repeats (arXiv 2010.11929).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from . import conv2d_hopper
from .gemm import DTYPE_NAMES, is_tma_aligned, matmul, tile_origin
from .hopper import is_hopper
from .tuning import Config, num_sms, tuned_config


@triton.jit
def _box_kernel(
    x_desc, w_desc, out_desc, bias_ptr,
    # dimensions
    batch, out_h, out_w, in_channels, out_channels, padding,
    HAS_BIAS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr,
    BOX_N: tl.constexpr, BOX_H: tl.constexpr, BOX_W: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
):  # fmt: skip
    """x (batch, h, w, in_channels), w (out_channels, taps * in_channels), out (batch, h, w, out_channels)."""
    boxes_h = tl.cdiv(out_h, BOX_H)
    boxes_w = tl.cdiv(out_w, BOX_W)
    num_m_tiles = tl.cdiv(batch, BOX_N) * boxes_h * boxes_w
    num_n_tiles = tl.cdiv(out_channels, BLOCK_N)
    channel_steps = tl.cdiv(in_channels, BLOCK_K)
    for tile in tl.range(tl.program_id(0), num_m_tiles * num_n_tiles, NUM_PROGRAMS, flatten=True):
        box, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        image = box // (boxes_h * boxes_w) * BOX_N
        first_y = box // boxes_w % boxes_h * BOX_H
        first_x = box % boxes_w * BOX_W
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(KERNEL_H * KERNEL_W * channel_steps):
            tap = step // channel_steps
            channel = step % channel_steps * BLOCK_K
            y = first_y + tap // KERNEL_W - padding
            x_position = first_x + tap % KERNEL_W - padding
            a = x_desc.load([image, y, x_position, channel]).reshape(BLOCK_M, BLOCK_K)
            b = w_desc.load([pid_n * BLOCK_N, tap * in_channels + channel])
            acc = tl.dot(a, b.T, acc)
        if HAS_BIAS:
            filters = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
            acc += tl.load(bias_ptr + filters, mask=filters < out_channels, other=0.0).to(tl.float32)[None, :]
        out = acc.to(out_desc.dtype).reshape(BOX_N, BOX_H, BOX_W, BLOCK_N)
        out_desc.store([image, first_y, first_x, pid_n * BLOCK_N], out)


@triton.jit
def _gather_kernel(
    x_ptr, w_ptr, bias_ptr, out_ptr,
    # dimensions
    num_pixels, height, width, in_channels, out_h, out_w, out_channels, stride, padding,
    HAS_BIAS: tl.constexpr, KERNEL_H: tl.constexpr, KERNEL_W: tl.constexpr, FOLD_W: tl.constexpr,
    EVEN_CHANNELS: tl.constexpr, HAS_EDGES: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """Grid (tiles,): BLOCK_M output pixels by BLOCK_N output channels.

    FOLD_W neighbouring taps of a kernel row, which lie in one piece in x where no edge cuts it, are walked as
    one.
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


def candidates(*, is_boxed: bool) -> list[Config]:
    """Returns the configurations that tuning tries, for tiles that are boxes (stride 1) or gathered."""
    if is_boxed and is_hopper():
        return conv2d_hopper.candidates()
    tiles = ((128, 128, 4), (128, 128, 8), (128, 64, 4), (64, 128, 4), (128, 256, 8), (256, 128, 8))
    return [
        Config({"BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_K": block_k, "GROUP_M": 8}, warps, stages, ctas)
        for bm, bn, warps in tiles
        for block_k in ((64, 128) if is_boxed else (32, 64))
        for stages in (2, 3, 4, 5)
        for ctas in ((1, 2) if is_boxed else (1,))
    ]


# The configuration for a GPU that nobody tuned.
DEFAULT = Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "GROUP_M": 8}, 8, 3)


@lru_cache(maxsize=256)
def choose_box(batch: int, out_h: int, out_w: int, block_m: int) -> tuple[int, int, int]:
    """Returns the box (images, rows, columns) of block_m pixels that covers the output with least padding.

    14 x 14 pixels of 32 images in tiles of 128: (32, 2, 2) fits exactly.
    """
    powers = [2**exponent for exponent in range(block_m.bit_length())]
    boxes = [(n, h, block_m // (n * h)) for n, h in product(powers, powers) if block_m % (n * h) == 0]

    def padded_pixels(box: tuple[int, int, int]) -> int:
        n, h, w = (triton.cdiv(size, side) for size, side in zip((batch, out_h, out_w), box, strict=True))
        return n * h * w

    return min(boxes, key=lambda box: (padded_pixels(box), -box[2], -box[1]))


def conv2d(
    x: torch.Tensor, weight: torch.Tensor, *, bias: torch.Tensor | None = None, stride: int = 1,
    padding: int = 0, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns the convolution (batch, out_h, out_w, out_channels), typed as x, accumulated in fp32.

    Raises: ValueError if shapes or dtypes do not fit, or x holds 2^31 elements or more.
    """
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[3] or x.dtype != weight.dtype:
        raise ValueError(
            f"expected channels last, got x {x.dtype} {x.shape} and weight {weight.dtype} {weight.shape}"
        )
    if not (x.is_contiguous() and weight.is_contiguous()) or x.numel() >= 2**31:
        raise ValueError("x and weight must be contiguous, x of fewer than 2^31 elements")
    batch, height, width, in_channels = x.shape
    out_channels, kernel_h, kernel_w, _ = weight.shape
    out_h = (height + 2 * padding - kernel_h) // stride + 1
    out_w = (width + 2 * padding - kernel_w) // stride + 1
    if out_h < 1 or out_w < 1 or stride < 1 or padding < 0:
        raise ValueError(f"a {kernel_h}x{kernel_w} kernel does not fit {height}x{width} padded by {padding}")
    out = torch.empty((batch, out_h, out_w, out_channels), dtype=x.dtype, device=x.device)
    is_plain = kernel_h == kernel_w == stride == 1 and padding == 0
    is_hopper_boxed = conv2d_hopper.is_supported(x, stride)
    is_aligned = all(is_tma_aligned(rows.view(-1, rows.shape[-1])) for rows in (x, weight, out))
    is_boxed = is_aligned and (stride == 1 or is_hopper_boxed)
    shape = (batch * out_h * out_w, out_channels, in_channels, kernel_h * kernel_w)
    variant = f"{DTYPE_NAMES[x.dtype]}.{'boxes' if is_boxed else 'gather'}"
    default = conv2d_hopper.DEFAULT if is_boxed and is_hopper_boxed else DEFAULT
    chosen = config or tuned_config("conv2d", variant, shape, x.device) or default
    if is_boxed and is_plain:
        return matmul(x.view(-1, in_channels), weight.view(-1, in_channels), bias=bias).view(out.shape)
    if not is_boxed:
        return _launch_gather(x, weight, bias, out, stride, padding, chosen)
    if "CONSUMERS" in chosen.meta:
        box = choose_box(batch, out_h, out_w, chosen.meta["ROWS"])
        conv2d_hopper.launch_hopper(
            x, weight, bias, out, stride=stride, padding=padding, box=box, config=chosen
        )
        return out
    return _launch_boxes(x, weight, bias, out, padding, chosen)


def _launch_boxes(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    padding: int,
    config: Config,
) -> torch.Tensor:
    batch, out_h, out_w, out_channels = out.shape
    _, kernel_h, kernel_w, in_channels = weight.shape
    block_m, block_n, block_k = (config.meta[name] for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))
    box = choose_box(batch, out_h, out_w, block_m)
    tiles = triton.cdiv(out_channels, block_n)
    for size, side in zip((batch, out_h, out_w), box, strict=True):
        tiles *= triton.cdiv(size, side)
    programs = min(config.ctas_per_sm * num_sms(x.device), tiles)
    _box_kernel[(programs,)](
        TensorDescriptor.from_tensor(x, [*box, block_k]),
        TensorDescriptor.from_tensor(weight.view(out_channels, -1), [block_n, block_k]),
        TensorDescriptor.from_tensor(out, [*box, block_n]),
        bias, batch, out_h, out_w, in_channels, out_channels, padding,
        HAS_BIAS=bias is not None, KERNEL_H=kernel_h, KERNEL_W=kernel_w,
        BOX_N=box[0], BOX_H=box[1], BOX_W=box[2], NUM_PROGRAMS=programs, **config.launch_options(),
    )  # fmt: skip
    return out


def _launch_gather(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, stride: int,
    padding: int, config: Config,
) -> torch.Tensor:  # fmt: skip
    _, height, width, in_channels = x.shape
    batch, out_h, out_w, out_channels = out.shape
    _, kernel_h, kernel_w, _ = weight.shape
    num_pixels = batch * out_h * out_w
    options = config.launch_options()
    tiles = triton.cdiv(num_pixels, options["BLOCK_M"]) * triton.cdiv(out_channels, options["BLOCK_N"])
    # Without padding no edge cuts a kernel row, so its taps are one piece of x.
    fold = kernel_w if padding == 0 else 1
    _gather_kernel[(tiles,)](
        x, weight, bias, out,
        num_pixels, height, width, in_channels, out_h, out_w, out_channels, stride, padding,
        HAS_BIAS=bias is not None, KERNEL_H=kernel_h, KERNEL_W=kernel_w, FOLD_W=fold,
        EVEN_CHANNELS=fold * in_channels % options["BLOCK_K"] == 0, HAS_EDGES=padding > 0, **options,
    )  # fmt: skip
    return out


def conv2d_oracle(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> torch.Tensor:
    """Returns what `conv2d` should, in float64."""
    channels_first = (tensor.double().permute(0, 3, 1, 2) for tensor in (x, weight))
    out = torch.nn.functional.conv2d(
        *channels_first, bias if bias is None else bias.double(), stride, padding
    )
    return out.permute(0, 2, 3, 1)


def launch_work(
    num_pixels: int, out_channels: int, in_channels: int, taps: int, dtype: torch.dtype, config: Config
) -> ops.Op:
    """Returns the FLOPs of `conv2d` and the bytes of its implicit product.

    SIMPLIFIED: reads every patch from HBM; effect: a 3x3 kernel with stride 1 counts x nine times, most hit
    L2.
    """
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(
        num_pixels, out_channels, taps * in_channels, DTYPE_NAMES[dtype], tile=tile, kind="conv2d"
    )
