"""Softmax as four launches, with every step's result in HBM: what one launch is measured against.

Shapes: x, out (num_rows, num_columns); the maxima and sums (num_rows,) are fp32, the exponentials are kept in
the dtype of x, as a framework that runs operation by operation keeps them. The matrix passes through HBM six
times: read by the maximum, read and written by the exponential, read by the sum, read and written by the
division.
Paper: online softmax, arXiv 1805.02867, section 2 (the safe softmax and its passes).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .norm import row_warps
from .softmax import check_rows


@triton.jit
def _row_kernel(x_ptr, out_ptr, num_columns, IS_MAX: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (num_rows,): the maximum or the sum of a row."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    other = float("-inf") if IS_MAX else 0.0
    x = tl.load(x_ptr + row * num_columns + columns, mask=columns < num_columns, other=other).to(tl.float32)
    tl.store(out_ptr + row, tl.max(x, 0) if IS_MAX else tl.sum(x, 0))


@triton.jit
def _map_kernel(x_ptr, row_ptr, out_ptr, num_columns, IS_EXP: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (num_rows,): exp(x - its row's maximum), or x / its row's sum."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    is_column = columns < num_columns
    x = tl.load(x_ptr + row * num_columns + columns, mask=is_column, other=0.0).to(tl.float32)
    of_row = tl.load(row_ptr + row)
    out = tl.exp(x - of_row) if IS_EXP else x / of_row
    tl.store(out_ptr + row * num_columns + columns, out.to(out_ptr.dtype.element_ty), mask=is_column)


def softmax_in_steps(x: torch.Tensor) -> torch.Tensor:
    """Returns the softmax of every row, shaped and typed as x, by maximum, exponential, sum and division.

    Raises: ValueError as `softmax`.
    """
    check_rows(x)
    num_rows, num_columns = x.shape
    launch = {
        "BLOCK": triton.next_power_of_2(num_columns),
        "num_warps": row_warps(num_columns * x.itemsize),
    }
    maxima, sums = (torch.empty(num_rows, dtype=torch.float32, device=x.device) for _ in range(2))
    exponentials, out = torch.empty_like(x), torch.empty_like(x)
    _row_kernel[(num_rows,)](x, maxima, num_columns, IS_MAX=True, **launch)
    _map_kernel[(num_rows,)](x, maxima, exponentials, num_columns, IS_EXP=True, **launch)
    _row_kernel[(num_rows,)](exponentials, sums, num_columns, IS_MAX=False, **launch)
    _map_kernel[(num_rows,)](exponentials, sums, out, num_columns, IS_EXP=False, **launch)
    return out


def launch_work(num_rows: int, num_columns: int, dtype: torch.dtype) -> ops.Op:
    """Returns the FLOPs and bytes of `softmax_in_steps`: four reads and two writes of the matrix."""
    elements = num_rows * num_columns
    return ops.elementwise(
        "softmax_in_steps", num_read=4 * elements, num_written=2 * elements, dtype=DTYPE_NAMES[dtype],
        flops=float(ops.attention.SOFTMAX_FLOPS * elements), num_kernels=4,
    )  # fmt: skip
