"""RMSNorm and LayerNorm, with the residual addition and the fp8 quantisation of the next product fused in.

Shapes: x, residual, out (num_tokens, hidden_size); weight, bias (hidden_size,); one program holds a whole
row.
Papers: RMSNorm, arXiv 1910.07467; LayerNorm, arXiv 1607.06450. Sums are fp32. With a residual, x + residual
is normalised and also returned, rounded to the dtype of x, as the next layer's residual.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES

FP8_MAX = 448.0  # Source: FP8 formats, arXiv 2209.05433, largest e4m3
BYTES_PER_WARP = 2048  # of a row that one warp holds: 64 bytes a thread, four 16-byte loads


@triton.jit
def _norm_kernel(
    x_ptr, residual_ptr, weight_ptr, bias_ptr, out_ptr, residual_out_ptr, scale_ptr, hidden_size, epsilon,
    HAS_RESIDUAL: tl.constexpr, IS_LAYER_NORM: tl.constexpr, IS_QUANTIZED: tl.constexpr,
    MAX_CODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (num_tokens,); scale (num_tokens,) receives what the quantised row must be multiplied by."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < hidden_size
    x = tl.load(x_ptr + row * hidden_size + columns, mask=is_column, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(residual_ptr + row * hidden_size + columns, mask=is_column, other=0.0).to(tl.float32)
        rounded = x.to(residual_out_ptr.dtype.element_ty)
        tl.store(residual_out_ptr + row * hidden_size + columns, rounded, mask=is_column)
        x = rounded.to(tl.float32)
    if IS_LAYER_NORM:
        mean = tl.sum(x, 0) / hidden_size
        x = tl.where(is_column, x - mean, 0.0)
    variance = tl.sum(x * x, 0) / hidden_size
    out = (
        x
        * tl.rsqrt(variance + epsilon)
        * tl.load(weight_ptr + columns, mask=is_column, other=0.0).to(tl.float32)
    )
    if IS_LAYER_NORM:
        out += tl.load(bias_ptr + columns, mask=is_column, other=0.0).to(tl.float32)
    if IS_QUANTIZED:
        scale = tl.maximum(tl.max(tl.abs(out), 0), 1.0e-12) / MAX_CODE
        tl.store(scale_ptr + row, scale)
        out = tl.minimum(tl.maximum(out / scale, -MAX_CODE), MAX_CODE)
    tl.store(out_ptr + row * hidden_size + columns, out.to(out_ptr.dtype.element_ty), mask=is_column)


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor, *, residual: torch.Tensor | None = None, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (normalised x + residual, x + residual); the second is x itself without a residual.

    Raises: ValueError if shapes do not fit or tensors are not contiguous.
    """
    out = torch.empty_like(x)
    return out, _launch(x, weight, None, residual, out, None, epsilon)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, residual: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Returns (normalised x + residual, x + residual), as `rms_norm` with mean and bias."""
    out = torch.empty_like(x)
    return out, _launch(x, weight, bias, residual, out, None, epsilon)


def rms_norm_fp8(
    x: torch.Tensor, weight: torch.Tensor, *, residual: torch.Tensor | None = None, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (fp8 e4m3 codes, scales (num_tokens,), x + residual): the norm with its quantisation fused."""
    codes = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    residual_out = _launch(x, weight, None, residual, codes, scales, epsilon)
    return codes, scales, residual_out


def _launch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    out: torch.Tensor, scales: torch.Tensor | None, epsilon: float,
) -> torch.Tensor:  # fmt: skip
    if x.ndim != 2 or weight.shape != x.shape[1:] or not x.is_contiguous():
        raise ValueError(
            f"expected contiguous x (num_tokens, hidden) and weight (hidden,), got {tuple(x.shape)}"
        )
    if residual is not None and (residual.shape != x.shape or not residual.is_contiguous()):
        raise ValueError(f"residual must be shaped as x {tuple(x.shape)}, got {tuple(residual.shape)}")
    residual_out = x if residual is None else torch.empty_like(x)
    _norm_kernel[(x.shape[0],)](
        x, residual, weight, bias, out, residual_out, scales, x.shape[1], epsilon,
        HAS_RESIDUAL=residual is not None, IS_LAYER_NORM=bias is not None, IS_QUANTIZED=scales is not None,
        MAX_CODE=FP8_MAX, BLOCK=triton.next_power_of_2(x.shape[1]),
        num_warps=row_warps(x.shape[1] * x.itemsize),
    )  # fmt: skip
    return residual_out


def row_warps(row_bytes: int) -> int:
    """Returns the warps that hold one row: 1 to 16."""
    return min(16, max(1, triton.next_power_of_2(triton.cdiv(row_bytes, BYTES_PER_WARP))))


def norm_oracle(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *,
    residual: torch.Tensor | None = None, epsilon: float = 1e-6,
) -> torch.Tensor:  # fmt: skip
    """Returns what `rms_norm` (no bias) or `layer_norm` should, in float64, of the rounded sum."""
    total = x.double() if residual is None else (x.float() + residual.float()).to(x.dtype).double()
    if bias is not None:
        return torch.nn.functional.layer_norm(total, x.shape[1:], weight.double(), bias.double(), epsilon)
    return total * torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon) * weight.double()


def launch_work(
    num_tokens: int, hidden_size: int, dtype: torch.dtype, *, has_residual: bool, is_layer_norm: bool = False
) -> ops.Op:
    """Returns the FLOPs and bytes of `rms_norm` or `layer_norm`."""
    formula = ops.layer_norm if is_layer_norm else ops.rms_norm
    return formula(num_tokens, hidden_size, DTYPE_NAMES[dtype], has_residual=has_residual)
