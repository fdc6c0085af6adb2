"""Transpose of a matrix through shared memory, so that both the reads and the writes are whole cache lines.

Shapes: x (m, n) -> out (n, m).
Paper: Ruetsch and Micikevicius, Optimizing Matrix Transpose in CUDA (NVIDIA, 2009): tiles, no uncoalesced
side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .tuning import Config, tuned_config


@triton.jit
def _transpose_kernel(
    x_ptr, out_ptr, m, n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (tiles,), along the rows of `out` first."""
    num_m_tiles = tl.cdiv(m, BLOCK_M)
    tile = tl.program_id(0)
    rows = (tile % num_m_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = (tile // num_m_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(
        x_ptr + rows[:, None].to(tl.int64) * n + columns[None, :],
        mask=(rows < m)[:, None] & (columns < n)[None, :],
    )
    targets = out_ptr + columns[:, None].to(tl.int64) * m + rows[None, :]
    tl.store(targets, x.T, mask=(columns < n)[:, None] & (rows < m)[None, :])


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries."""
    return [
        Config({"BLOCK_M": block_m, "BLOCK_N": block_n}, warps, 1)
        for block_m in (32, 64, 128)
        for block_n in (32, 64, 128)
        for warps in (4, 8)
    ]


DEFAULT = Config({"BLOCK_M": 64, "BLOCK_N": 64}, 4, 1)


def transpose(x: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Returns x.T, contiguous.

    Raises: ValueError if x is no contiguous matrix.
    """
    if x.ndim != 2 or not x.is_contiguous():
        raise ValueError(f"expected a contiguous matrix, got {tuple(x.shape)}")
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    chosen = config or tuned_config("transpose", f"{8 * x.itemsize}bit", (m, n), x.device) or DEFAULT
    tiles = triton.cdiv(m, chosen.meta["BLOCK_M"]) * triton.cdiv(n, chosen.meta["BLOCK_N"])
    _transpose_kernel[(tiles,)](x, out, m, n, **chosen.launch_options())
    return out


def transpose_oracle(x: torch.Tensor) -> torch.Tensor:
    """Returns what `transpose` should."""
    return x.T.contiguous()


def launch_work(m: int, n: int, dtype: torch.dtype) -> ops.Op:
    """Returns the bytes of `transpose`: one read, one write."""
    return ops.elementwise("transpose", num_read=m * n, num_written=m * n, dtype=DTYPE_NAMES[dtype])
