"""A layer's product by the faster of two kernels: one CTA per tile, or several that share a tile along k.

Shapes: x (m, k), weight (n, k), bias (n,), out (m, n); bf16, fp16, fp32 as tf32. Tuning measures both kernels
over the rows of decoding batches; where it did so at the nearest shape of both, the faster one runs.
"""

from __future__ import annotations

import torch

from .gemm import DTYPE_NAMES, TMA_ALIGNMENT_BYTES, is_tma_aligned, matmul
from .gemm_split_k import matmul_split_k
from .tuning import tuned_winner

# Rows up to which k is split on a GPU that nobody tuned. Source: `tuned/nvidia-h200.json`.
MOST_SPLIT_ROWS = 256


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns x @ weight.T (+ bias) of shape (m, n), in the dtype of x.

    Raises: ValueError if shapes or dtypes do not fit, or x or weight is not contiguous along k.
    """
    multiply = matmul_split_k if is_split(x, weight) else matmul
    return multiply(x, weight, bias=bias)


def is_split(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Returns whether CTAs should share tiles; they must where the copy engine cannot address the rows."""
    n = weight.shape[0]
    if not (is_tma_aligned(x) and is_tma_aligned(weight)) or n * x.itemsize % TMA_ALIGNMENT_BYTES:
        return True
    shape, name = (x.shape[0], n, x.shape[1]), DTYPE_NAMES[x.dtype]
    whole = tuned_winner("gemm", name, shape, x.device)
    split = tuned_winner("gemm_split_k", name, shape, x.device)
    if whole is None or split is None or whole.shape != split.shape:
        return x.shape[0] <= MOST_SPLIT_ROWS
    return split.time_us < whole.time_us
