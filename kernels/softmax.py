"""Softmax over the rows of a matrix in one launch: the row is read once, kept in registers, and written once.

Shapes: x, out (num_rows, num_columns), num_columns up to 65,536.
Paper: FlashAttention, arXiv 2205.14135, section 2.2, on what fusing the steps of softmax saves.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .norm import row_warps

MAX_COLUMNS = 65_536  # fp32 values of a row that the registers of 16 warps hold, 128 a thread


@triton.jit
def _softmax_kernel(x_ptr, out_ptr, num_columns, BLOCK: tl.constexpr):
    """Grid (num_rows,)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < num_columns
    x = tl.load(x_ptr + row * num_columns + columns, mask=is_column, other=float("-inf")).to(tl.float32)
    weights = tl.exp(x - tl.max(x, 0))
    out = weights / tl.sum(weights, 0)
    tl.store(out_ptr + row * num_columns + columns, out.to(out_ptr.dtype.element_ty), mask=is_column)


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Returns the softmax of every row, shaped and typed as x.

    Raises: ValueError if x is no contiguous matrix or has more than 65,536 columns.
    """
    check_rows(x)
    out = torch.empty_like(x)
    num_rows, num_columns = x.shape
    _softmax_kernel[(num_rows,)](
        x,
        out,
        num_columns,
        BLOCK=triton.next_power_of_2(num_columns),
        num_warps=row_warps(num_columns * x.itemsize),
    )
    return out


def check_rows(x: torch.Tensor) -> None:
    """Raises ValueError unless x is a contiguous matrix whose rows fit the registers."""
    if x.ndim != 2 or not x.is_contiguous() or x.shape[1] > MAX_COLUMNS:
        raise ValueError(
            f"expected a contiguous matrix of at most {MAX_COLUMNS} columns, got {tuple(x.shape)}"
        )


def softmax_oracle(x: torch.Tensor) -> torch.Tensor:
    """Returns what `softmax` should, in float64."""
    return x.double().softmax(-1)


def launch_work(num_rows: int, num_columns: int, dtype: torch.dtype) -> ops.Op:
    """Returns the FLOPs and bytes of `softmax`: one read, one write."""
    elements = num_rows * num_columns
    return ops.elementwise(
        "softmax",
        num_read=elements,
        num_written=elements,
        dtype=DTYPE_NAMES[dtype],
        flops=float(ops.attention.SOFTMAX_FLOPS * elements),
    )
