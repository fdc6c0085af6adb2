"""Adds up the partial outputs of contexts that were split, weighted by their log-sum-exp.

Shapes: partial fp32 (num_requests, num_splits, ..., head_dim), lse fp32 the same without head_dim, base 2;
out (num_requests, ..., head_dim).
Source: flash decoding (crfm.stanford.edu/2023/10/12/flashdecoding.html), its last step.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

REDUCED_ELEMENTS = 64 * 128  # that one CTA of 128 threads adds up
# Up to so many splits a thread adds them up alone, of several rows at once: no exchange between warps.
FEW_SPLITS, FEW_ELEMENTS = 8, 8 * 128


@triton.jit
def reduce_splits_kernel(
    partial_ptr, lse_ptr, out_ptr, num_splits, num_rows,
    HEAD_DIM: tl.constexpr, BLOCK_SPLITS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Grid (rows, num_requests, column blocks): out = sum of partials weighted by 2 ** (lse - max)."""
    row = tl.program_id(0)
    request = tl.program_id(1)
    columns = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    splits = tl.arange(0, BLOCK_SPLITS)
    sources = (request.to(tl.int64) * num_splits + splits) * num_rows + row
    lse = tl.load(lse_ptr + sources, mask=splits < num_splits, other=-1.0e30)
    weights = tl.exp2(lse - tl.max(lse, 0))
    partials = tl.load(
        partial_ptr + sources[:, None] * HEAD_DIM + columns[None, :],
        mask=(splits < num_splits)[:, None],
        other=0.0,
    )
    out = tl.sum(partials * weights[:, None], 0) / tl.sum(weights, 0)
    target = out_ptr + (request.to(tl.int64) * num_rows + row) * HEAD_DIM + columns
    tl.store(target, out.to(out_ptr.dtype.element_ty))


@triton.jit
def reduce_few_splits_kernel(
    partial_ptr, lse_ptr, out_ptr, num_rows, total_rows,
    HEAD_DIM: tl.constexpr, NUM_SPLITS: tl.constexpr, BLOCK_ROWS: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of all requests' rows,): as `reduce_splits_kernel`, one split after the other."""
    places = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = places < total_rows
    sources = (places // num_rows).to(tl.int64) * NUM_SPLITS * num_rows + places % num_rows
    columns = tl.arange(0, HEAD_DIM)
    largest = tl.full((BLOCK_ROWS,), -1.0e30, dtype=tl.float32)
    for split in tl.static_range(NUM_SPLITS):
        lse = tl.load(lse_ptr + sources + split * num_rows, mask=is_row, other=0.0)
        largest = tl.maximum(largest, lse)
    total = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_ROWS, HEAD_DIM), dtype=tl.float32)
    for split in tl.static_range(NUM_SPLITS):
        rows = sources + split * num_rows
        weights = tl.exp2(tl.load(lse_ptr + rows, mask=is_row, other=0.0) - largest)
        partials = tl.load(
            partial_ptr + rows[:, None] * HEAD_DIM + columns[None, :], mask=is_row[:, None], other=0.0
        )
        total += weights
        acc += partials * weights[:, None]
    targets = out_ptr + places.to(tl.int64)[:, None] * HEAD_DIM + columns[None, :]
    tl.store(targets, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=is_row[:, None])


def reduce_splits(partial: torch.Tensor, lse: torch.Tensor, out: torch.Tensor) -> None:
    """Adds up partial outputs (num_requests, num_splits, ..., head_dim) into `out`, weighted by their lse."""
    num_requests, num_splits = lse.shape[:2]
    num_rows, head_dim = lse[0, 0].numel(), out.shape[-1]
    if num_splits <= FEW_SPLITS:
        total_rows, block_rows = num_requests * num_rows, max(1, FEW_ELEMENTS // head_dim)
        reduce_few_splits_kernel[(triton.cdiv(total_rows, block_rows),)](
            partial, lse, out, num_rows, total_rows,
            HEAD_DIM=head_dim, NUM_SPLITS=num_splits, BLOCK_ROWS=block_rows,
        )  # fmt: skip
        return
    block_splits = triton.next_power_of_2(num_splits)
    # 64 elements a thread: their loads are all in flight, and nothing spills.
    block_d = max(16, min(head_dim, REDUCED_ELEMENTS // block_splits))
    reduce_splits_kernel[(num_rows, num_requests, head_dim // block_d)](
        partial, lse, out, num_splits, num_rows,
        HEAD_DIM=head_dim, BLOCK_SPLITS=block_splits, BLOCK_D=block_d,
    )  # fmt: skip
