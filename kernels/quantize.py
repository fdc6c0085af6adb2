"""Dynamic quantisation of activations: one scale per token, or per 128 columns of a token, in one pass.

Shapes: x (num_tokens, hidden) -> codes (num_tokens, hidden) fp8 e4m3 or int8, and scales fp32: (num_tokens,)
per token, or (num_tokens, hidden / 128) per group, stored with tokens contiguous as the block-scaled product
reads them.
Papers: SmoothQuant, arXiv 2211.10438 (per token); DeepSeek-V3, arXiv 2412.19437, section 3.3.2 (1 x 128).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .norm import FP8_MAX, row_warps

INT8_MAX = 127.0
GROUP_SIZE = 128
GROUP_ROWS = 16  # tokens of one program when scales are per group


@triton.jit
def encode(x, scale, MAX_CODE: tl.constexpr, IS_INT8: tl.constexpr):
    """Codes of x under its scale: e4m3 in fp32 still, or int8."""
    scaled = tl.minimum(tl.maximum(x / scale, -MAX_CODE), MAX_CODE)
    if IS_INT8:
        # Half away from zero: truncation after adding half of the sign.
        scaled = (scaled + tl.where(scaled < 0, -0.5, 0.5)).to(tl.int8)
    return scaled


@triton.jit
def _per_token_kernel(
    x_ptr, codes_ptr, scales_ptr, hidden, MAX_CODE: tl.constexpr, IS_INT8: tl.constexpr, BLOCK: tl.constexpr
):
    """Grid (num_tokens,)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < hidden
    x = tl.load(x_ptr + row * hidden + columns, mask=is_column, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 0), 1.0e-12) / MAX_CODE
    tl.store(scales_ptr + row, scale)
    codes = encode(x, scale, MAX_CODE, IS_INT8)
    tl.store(codes_ptr + row * hidden + columns, codes.to(codes_ptr.dtype.element_ty), mask=is_column)


@triton.jit
def _per_group_kernel(
    x_ptr, codes_ptr, scales_ptr, num_tokens, hidden,
    MAX_CODE: tl.constexpr, IS_INT8: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Grid (groups of columns, blocks of tokens); scales (groups, num_tokens)."""
    group = tl.program_id(0)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    is_row = rows < num_tokens
    offsets = rows.to(tl.int64)[:, None] * hidden + (group * GROUP + tl.arange(0, GROUP))[None, :]
    x = tl.load(x_ptr + offsets, mask=is_row[:, None], other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1), 1.0e-12) / MAX_CODE
    tl.store(scales_ptr + group.to(tl.int64) * num_tokens + rows, scale, mask=is_row)
    codes = encode(x, scale[:, None], MAX_CODE, IS_INT8)
    tl.store(codes_ptr + offsets, codes.to(codes_ptr.dtype.element_ty), mask=is_row[:, None])


def quantize_per_token(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (codes of `dtype`, scales (num_tokens,)); codes * scales is about x.

    Raises: ValueError if x is no contiguous matrix or dtype is neither fp8 e4m3 nor int8.
    """
    max_code = _check(x, dtype)
    codes = torch.empty_like(x, dtype=dtype)
    scales = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    _per_token_kernel[(x.shape[0],)](
        x, codes, scales, x.shape[1], MAX_CODE=max_code, IS_INT8=dtype == torch.int8,
        BLOCK=triton.next_power_of_2(x.shape[1]), num_warps=row_warps(x.shape[1] * x.itemsize),
    )  # fmt: skip
    return codes, scales


def quantize_per_group(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (codes of `dtype`, scales (num_tokens, hidden / 128) with tokens contiguous).

    Raises: ValueError as `quantize_per_token`, or if hidden is no multiple of 128.
    """
    max_code = _check(x, dtype)
    num_tokens, hidden = x.shape
    if hidden % GROUP_SIZE:
        raise ValueError(f"hidden must be a multiple of {GROUP_SIZE}, got {hidden}")
    codes = torch.empty_like(x, dtype=dtype)
    scales = torch.empty((hidden // GROUP_SIZE, num_tokens), dtype=torch.float32, device=x.device)
    _per_group_kernel[(hidden // GROUP_SIZE, triton.cdiv(num_tokens, GROUP_ROWS))](
        x, codes, scales, num_tokens, hidden,
        MAX_CODE=max_code, IS_INT8=dtype == torch.int8, GROUP=GROUP_SIZE, ROWS=GROUP_ROWS,
    )  # fmt: skip
    return codes, scales.T


def _check(x: torch.Tensor, dtype: torch.dtype) -> float:
    """Returns the largest code of `dtype`."""
    if x.ndim != 2 or not x.is_contiguous():
        raise ValueError(f"expected a contiguous matrix, got {tuple(x.shape)}")
    if dtype not in (torch.float8_e4m3fn, torch.int8):
        raise ValueError(f"expected fp8 e4m3 or int8, got {dtype}")
    return INT8_MAX if dtype == torch.int8 else FP8_MAX


def quantize_oracle(
    x: torch.Tensor, dtype: torch.dtype, group_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (x, scales) in float64: what codes * scales should be but for the rounding of the codes."""
    groups = x.double().unflatten(1, (-1, group_size))
    scales = groups.abs().amax(-1).clamp(min=1e-12) / (INT8_MAX if dtype == torch.int8 else FP8_MAX)
    return groups.flatten(1), scales


def launch_work(num_tokens: int, hidden: int, dtype: torch.dtype, quantized_dtype: torch.dtype) -> ops.Op:
    """Returns the bytes of `quantize_per_token`: one read, one write; the row stays in registers between."""
    elements = num_tokens * hidden
    width = quantized_dtype.itemsize / dtype.itemsize
    return ops.elementwise(
        "quantize",
        num_read=elements,
        num_written=elements * width,
        dtype=DTYPE_NAMES[dtype],
        flops=3.0 * elements,
    )
