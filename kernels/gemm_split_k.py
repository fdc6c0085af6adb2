"""Matrix products with few rows: CTAs share an output tile along k, so that all SMs stream the weights.

Shapes: a (m, k), b (n, k), out (m, n), any sizes; bf16, fp16; fp32 runs as tf32. Meant for m up to some
hundreds, where a tile per CTA would leave most SMs idle; also takes sizes and strides that the copy engine
cannot address.
Paper: stream-K, arXiv 2301.03598, section 3.2 (fixed-split); partial sums are added in a second launch, in a
fixed order, so results repeat exactly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES, matmul_oracle
from .tuning import Config, tuned_config

__all__ = ["candidates", "launch_work", "matmul_oracle", "matmul_split_k"]

REDUCE_BLOCK = 1024
MAX_TILE_ROWS = 128
SRAM_BYTES = 200_000  # of 227 KiB that a CTA of Hopper may have; the rest is left to the compiler


@triton.jit
def _split_k_kernel(
    a_ptr, b_ptr, bias_ptr, partial_ptr,
    # dimensions and strides
    m, n, k, stride_am, stride_bn, k_per_split,
    # meta-parameters
    EVEN_K: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of m, tiles of n, splits); partial (splits, m, n), the output itself if splits is 1."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    depths = tl.arange(0, BLOCK_K)
    split = tl.program_id(2)
    # Rows and columns beyond the edge read the first ones again and are not stored. All reading the last one
    # would ask one slice of L2 for it from all SMs at once: half as fast for 80 rows.
    a_rows = a_ptr + (rows % m).to(tl.int64)[:, None] * stride_am
    b_rows = b_ptr + (columns % n).to(tl.int64)[:, None] * stride_bn
    first, last = split * k_per_split, tl.minimum((split + 1) * k_per_split, k)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in tl.range(first, last, BLOCK_K):
        if EVEN_K:
            a = tl.load(a_rows + (start + depths)[None, :])
            b = tl.load(b_rows + (start + depths)[None, :])
        else:
            is_inside = (start + depths < last)[None, :]
            a = tl.load(a_rows + (start + depths)[None, :], mask=is_inside, other=0.0)
            b = tl.load(b_rows + (start + depths)[None, :], mask=is_inside, other=0.0)
        acc = tl.dot(a, b.T, acc)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    targets = partial_ptr + (split.to(tl.int64) * m + rows[:, None]) * n + columns[None, :]
    tl.store(targets, acc.to(partial_ptr.dtype.element_ty), mask=(rows < m)[:, None] & (columns < n)[None, :])


@triton.jit
def _sum_splits_kernel(
    partial_ptr, bias_ptr, out_ptr, num_splits, num_elements, n, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    """Grid (blocks of the output,): out = sum of the splits (+ bias)."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = offsets < num_elements
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    source = partial_ptr + offsets
    for _ in range(num_splits):
        total += tl.load(source, mask=is_inside, other=0.0).to(tl.float32)
        source += num_elements
    if HAS_BIAS:
        total += tl.load(bias_ptr + offsets % n, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, total.to(out_ptr.dtype.element_ty), mask=is_inside)


def candidates(m: int) -> list[Config]:
    """Returns the configurations that tuning tries; SPLITS CTAs share a tile.

    Up to 64 rows are one tile. More are tiles of 64 or 128 rows, which read the same columns of b at the same
    time, so that all but one find them in L2.
    """
    if m > MAX_TILE_ROWS // 2:
        return [
            Config({"BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_K": block_k, "SPLITS": splits}, warps, stages)
            for bm, bn, warps in ((64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8))
            for block_k in (64, 128)
            for splits in (1, 2, 4)
            for stages in (3, 4)
            if stages * block_k * (bm + bn) * 2 <= SRAM_BYTES
        ]
    block_m = max(16, triton.next_power_of_2(m))
    return [
        Config({"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "SPLITS": splits}, 4, stages)
        for block_n in (32, 64, 128)
        for block_k in (64, 128, 256)
        for splits in (1, 2, 4, 8)
        for stages in (3, 4, 5)
        if stages * block_k * (block_m + block_n) * 2 <= SRAM_BYTES
    ]


def default_config(m: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    block_m = 16 if m <= 16 else 64 if m <= 64 else MAX_TILE_ROWS
    return Config({"BLOCK_M": block_m, "BLOCK_N": 64, "BLOCK_K": 64, "SPLITS": 4}, 4, 4)


def matmul_split_k(
    a: torch.Tensor, b: torch.Tensor, *, bias: torch.Tensor | None = None, config: Config | None = None
) -> torch.Tensor:
    """Returns a @ b.T (+ bias) of shape (m, n), in the dtype of `a`.

    Raises: ValueError if shapes or dtypes do not fit, or a or b is not contiguous along k.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.dtype != b.dtype:
        raise ValueError(
            f"expected a (m, k), b (n, k) of one dtype, got {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    if a.stride(1) != 1 or b.stride(1) != 1 or (bias is not None and bias.shape != b.shape[:1]):
        raise ValueError("a and b must be contiguous along k, and bias of shape (n,)")
    (m, k), n = a.shape, b.shape[0]
    out = torch.empty((m, n), dtype=a.dtype, device=a.device)
    chosen = (
        config or tuned_config("gemm_split_k", DTYPE_NAMES[a.dtype], (m, n, k), a.device) or default_config(m)
    )
    options = chosen.launch_options()
    k_steps = triton.cdiv(triton.cdiv(k, options["BLOCK_K"]), options.pop("SPLITS"))
    k_per_split = k_steps * options["BLOCK_K"]
    splits = triton.cdiv(k, k_per_split)
    partial = out if splits == 1 else torch.empty((splits, m, n), dtype=torch.float32, device=a.device)
    grid = (triton.cdiv(m, options["BLOCK_M"]), triton.cdiv(n, options["BLOCK_N"]), splits)
    _split_k_kernel[grid](
        a, b, bias, partial, m, n, k, a.stride(0), b.stride(0), k_per_split,
        EVEN_K=k % options["BLOCK_K"] == 0, HAS_BIAS=bias is not None and splits == 1, **options,
    )  # fmt: skip
    if splits > 1:
        sum_splits(partial, out, splits, bias)
    return out


def sum_splits(partial: torch.Tensor, out: torch.Tensor, num_splits: int, bias: torch.Tensor | None) -> None:
    """Adds `num_splits` partial products (splits, m, n), and the bias (n,), into out (m, n)."""
    num_elements = out.numel()
    _sum_splits_kernel[(triton.cdiv(num_elements, REDUCE_BLOCK),)](
        partial,
        bias,
        out,
        num_splits,
        num_elements,
        out.shape[1],
        HAS_BIAS=bias is not None,
        BLOCK=REDUCE_BLOCK,
    )


def launch_work(m: int, n: int, k: int, dtype: torch.dtype, config: Config) -> ops.Op:
    """Returns the FLOPs and bytes of `matmul_split_k` with this configuration."""
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(m, n, k, DTYPE_NAMES[dtype], tile=tile, split_k=int(config.meta["SPLITS"]))
