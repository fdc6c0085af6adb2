"""What stands between a block's products: SiLU(gate) * up, and rotary positions, each in one pass.

Shapes: gate_up (num_tokens, 2 * intermediate) -> (num_tokens, intermediate); for RoPE q (num_tokens,
num_q_heads, head_dim) and k (num_tokens, num_kv_heads, head_dim), changed in place, positions int64
(num_tokens,), and a table of cosines then sines, fp32 (max_position, head_dim).
Papers: GLU variants, arXiv 2002.05202; RoFormer, arXiv 2104.09864, in the half-split layout of GPT-NeoX and
Llama.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES

BLOCK = 4096


@triton.jit
def _silu_mul_kernel(gate_up_ptr, out_ptr, intermediate_size, BLOCK: tl.constexpr):
    """Grid (column blocks, num_tokens)."""
    row = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < intermediate_size
    gate_row = gate_up_ptr + row * 2 * intermediate_size
    gate = tl.load(gate_row + columns, mask=is_column, other=0.0).to(tl.float32)
    up = tl.load(gate_row + intermediate_size + columns, mask=is_column, other=0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + row * intermediate_size + columns, out.to(out_ptr.dtype.element_ty), mask=is_column)


@triton.jit
def _rotate(ptr, rows, pairs, cosines, sines, is_row, HALF: tl.constexpr):
    first_ptrs = ptr + rows[:, None] * (2 * HALF) + pairs[None, :]
    first = tl.load(first_ptrs, mask=is_row[:, None], other=0.0).to(tl.float32)
    second = tl.load(first_ptrs + HALF, mask=is_row[:, None], other=0.0).to(tl.float32)
    tl.store(first_ptrs, (first * cosines - second * sines).to(ptr.dtype.element_ty), mask=is_row[:, None])
    tl.store(
        first_ptrs + HALF, (second * cosines + first * sines).to(ptr.dtype.element_ty), mask=is_row[:, None]
    )


@triton.jit
def _rope_kernel(
    q_ptr, k_ptr, positions_ptr, table_ptr,
    NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HALF: tl.constexpr,
    BLOCK_Q_HEADS: tl.constexpr, BLOCK_KV_HEADS: tl.constexpr,
):  # fmt: skip
    """Grid (num_tokens,); all the heads of a token share its angles."""
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions_ptr + token)
    pairs = tl.arange(0, HALF)
    cosines = tl.load(table_ptr + position * (2 * HALF) + pairs)[None, :]
    sines = tl.load(table_ptr + position * (2 * HALF) + HALF + pairs)[None, :]
    q_heads = tl.arange(0, BLOCK_Q_HEADS)
    kv_heads = tl.arange(0, BLOCK_KV_HEADS)
    _rotate(q_ptr, token * NUM_Q_HEADS + q_heads, pairs, cosines, sines, q_heads < NUM_Q_HEADS, HALF)
    _rotate(k_ptr, token * NUM_KV_HEADS + kv_heads, pairs, cosines, sines, kv_heads < NUM_KV_HEADS, HALF)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Returns SiLU of the left half times the right half, (num_tokens, intermediate).

    Raises: ValueError if gate_up is no contiguous matrix of an even number of columns.
    """
    if gate_up.ndim != 2 or gate_up.shape[1] % 2 or not gate_up.is_contiguous():
        raise ValueError(f"expected contiguous (num_tokens, 2 * intermediate), got {tuple(gate_up.shape)}")
    num_tokens, intermediate_size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((num_tokens, intermediate_size), dtype=gate_up.dtype, device=gate_up.device)
    block = min(BLOCK, triton.next_power_of_2(intermediate_size))
    _silu_mul_kernel[(triton.cdiv(intermediate_size, block), num_tokens)](
        gate_up, out, intermediate_size, BLOCK=block, num_warps=8
    )
    return out


def silu_mul_oracle(gate_up: torch.Tensor) -> torch.Tensor:
    """Returns what `silu_mul` should, in float64."""
    gate, up = gate_up.double().chunk(2, dim=1)
    return torch.nn.functional.silu(gate) * up


def rope_table(max_position: int, head_dim: int, *, base: float = 10_000.0) -> torch.Tensor:
    """Returns cosines then sines of every position, fp32 (max_position, head_dim)."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(max_position, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def rope_(q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, table: torch.Tensor) -> None:
    """Rotates q and k in place by their positions.

    Raises: ValueError if shapes do not fit, head_dim is no power of two, or q or k is not contiguous.
    """
    num_tokens, num_q_heads, head_dim = q.shape
    if (
        k.shape[::2] != (num_tokens, head_dim)
        or positions.shape != (num_tokens,)
        or table.shape[1] != head_dim
    ):
        raise ValueError(
            f"shapes do not fit: q {tuple(q.shape)}, k {tuple(k.shape)}, table {tuple(table.shape)}"
        )
    if head_dim & (head_dim - 1) or not (q.is_contiguous() and k.is_contiguous()):
        raise ValueError(f"head_dim must be a power of two and q, k contiguous, got {head_dim}")
    num_kv_heads = k.shape[1]
    _rope_kernel[(num_tokens,)](
        q, k, positions, table,
        NUM_Q_HEADS=num_q_heads, NUM_KV_HEADS=num_kv_heads, HALF=head_dim // 2,
        BLOCK_Q_HEADS=triton.next_power_of_2(num_q_heads),
        BLOCK_KV_HEADS=triton.next_power_of_2(num_kv_heads),
    )  # fmt: skip


def rope_oracle(x: torch.Tensor, positions: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Returns rotated x (num_tokens, heads, head_dim) in float64."""
    cosines, sines = table.double()[positions][:, None, :].chunk(2, dim=-1)
    first, second = x.double().chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def silu_mul_work(num_tokens: int, intermediate_size: int, dtype: torch.dtype) -> ops.Op:
    """Returns the FLOPs and bytes of `silu_mul`."""
    return ops.silu_mul(num_tokens, intermediate_size, DTYPE_NAMES[dtype])


def rope_work(num_tokens: int, num_heads: int, head_dim: int, dtype: torch.dtype) -> ops.Op:
    """Returns the FLOPs and bytes of `rope_`, for query and key heads together."""
    return ops.rope(num_tokens, num_heads, head_dim, DTYPE_NAMES[dtype])
