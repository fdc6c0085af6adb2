"""Attention as three plain steps, with the scores in HBM: what FlashAttention is measured against.

Shapes: q, out (num_tokens, num_q_heads, head_dim); k, v (num_tokens, num_kv_heads, head_dim); one sequence.
The scores and the probabilities are each (num_q_heads, num_tokens, num_tokens), written and read once: O(N^2)
memory.
Paper: standard attention, arXiv 2205.14135, Algorithm 0. A mask hides scores but saves no work.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .attention_prefill import attend
from .gemm import DTYPE_NAMES
from .norm import row_warps
from .tuning import Config

TILE = Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, 8, 3)


@triton.jit
def _batched_product_kernel(
    a_ptr, b_ptr, out_ptr, m, n, k,
    stride_ah, stride_am, stride_ak, stride_bh, stride_bk, stride_bn, stride_oh, stride_om, stride_on,
    factor, HEADS_PER_B: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of m, tiles of n, heads): out[h] = factor * a[h] (m, k) @ b[h // HEADS_PER_B] (k, n)."""
    head = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    depths = tl.arange(0, BLOCK_K)
    a_ptr += head * stride_ah
    b_ptr += head // HEADS_PER_B * stride_bh
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in tl.range(0, k, BLOCK_K):
        a = tl.load(
            a_ptr + rows[:, None] * stride_am + (start + depths)[None, :] * stride_ak,
            mask=(rows < m)[:, None] & (start + depths < k)[None, :], other=0.0,
        )  # fmt: skip
        b = tl.load(
            b_ptr + (start + depths)[:, None] * stride_bk + columns[None, :] * stride_bn,
            mask=(start + depths < k)[:, None] & (columns < n)[None, :], other=0.0,
        )  # fmt: skip
        acc = tl.dot(a, b, acc)
    targets = (
        out_ptr + head * stride_oh + rows[:, None].to(tl.int64) * stride_om + columns[None, :] * stride_on
    )
    tl.store(
        targets,
        (acc * factor).to(out_ptr.dtype.element_ty),
        mask=(rows < m)[:, None] & (columns < n)[None, :],
    )


@triton.jit
def _masked_softmax_kernel(scores_ptr, out_ptr, num_tokens, IS_CAUSAL: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (num_tokens, heads): one row of scores."""
    row = tl.program_id(0)
    offset = (tl.program_id(1).to(tl.int64) * num_tokens + row) * num_tokens
    keys = tl.arange(0, BLOCK)
    is_seen = keys < num_tokens
    scores = tl.load(scores_ptr + offset + keys, mask=is_seen, other=float("-inf")).to(tl.float32)
    if IS_CAUSAL:
        scores = tl.where(keys <= row, scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 0))
    weights /= tl.sum(weights, 0)
    tl.store(out_ptr + offset + keys, weights.to(out_ptr.dtype.element_ty), mask=is_seen)


def naive_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool = True, config: Config = TILE
) -> torch.Tensor:
    """Returns attention of one sequence, shaped and typed as q, by way of two matrices in HBM.

    Raises: ValueError if heads do not fit or tensors are not contiguous.
    """
    check_sequence(q, k, v)
    num_tokens, num_heads, head_dim = q.shape
    group = num_heads // k.shape[1]
    scores = torch.empty((num_heads, num_tokens, num_tokens), dtype=q.dtype, device=q.device)
    probabilities = torch.empty_like(scores)
    out = torch.empty_like(q)
    by_head = [tensor.transpose(0, 1) for tensor in (q, k, v, out)]
    tiles = triton.cdiv(num_tokens, config.meta["BLOCK_M"])
    _batched_product_kernel[(tiles, triton.cdiv(num_tokens, config.meta["BLOCK_N"]), num_heads)](
        q, k, scores, num_tokens, num_tokens, head_dim,
        *by_head[0].stride(), *by_head[1].transpose(1, 2).stride(), *scores.stride(),
        head_dim**-0.5, HEADS_PER_B=group, **config.launch_options(),
    )  # fmt: skip
    _masked_softmax_kernel[(num_tokens, num_heads)](
        scores, probabilities, num_tokens, IS_CAUSAL=is_causal,
        BLOCK=triton.next_power_of_2(num_tokens), num_warps=row_warps(num_tokens * q.itemsize),
    )  # fmt: skip
    _batched_product_kernel[(tiles, triton.cdiv(head_dim, config.meta["BLOCK_N"]), num_heads)](
        probabilities, v, out, num_tokens, head_dim, num_tokens,
        *probabilities.stride(), *by_head[2].stride(), *by_head[3].stride(),
        1.0, HEADS_PER_B=group, **config.launch_options(),
    )  # fmt: skip
    return out


def check_sequence(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raises ValueError unless q, k, v are contiguous (num_tokens, heads, head_dim) of one sequence."""
    if q.ndim != 3 or k.shape != v.shape or k.shape[::2] != q.shape[::2] or q.shape[1] % k.shape[1]:
        raise ValueError(f"heads do not fit: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    if not (q.is_contiguous() and k.is_contiguous() and v.is_contiguous()):
        raise ValueError("q, k and v must be contiguous")


def naive_attention_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool = True
) -> torch.Tensor:
    """Returns what `naive_attention` should, in float64."""
    return attend(q, k, v, is_causal=is_causal)


def launch_work(
    num_tokens: int,
    *,
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    is_causal: bool = True,
) -> ops.Op:
    """Returns the FLOPs and bytes of `naive_attention`, three launches."""
    shape = ops.AttentionShape.grouped_query(num_q_heads, num_kv_heads, head_dim, dtype=DTYPE_NAMES[dtype])
    return ops.naive_attention(shape, seq_len=num_tokens, is_causal=is_causal)
