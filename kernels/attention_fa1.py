"""FlashAttention-1: keys outside, queries inside, so the output passes through HBM once per block of keys.

Shapes: q, out (num_tokens, num_q_heads, head_dim); k, v (num_tokens, num_kv_heads, head_dim); one sequence.
The running sum and maximum of every row lie beside the output in HBM, fp32 (num_q_heads, num_tokens).
Paper: arXiv 2205.14135, Algorithm 1: O(N) memory, no score leaves the SM. One program walks all blocks of one
head, as in the paper, so few heads leave SMs idle; FlashAttention-2 turns the loops round (see
`attention_prefill`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .attention_naive import check_sequence
from .attention_prefill import LOG2_E, attend
from .gemm import DTYPE_NAMES
from .tuning import Config

TILE = Config({"BLOCK_M": 64, "BLOCK_N": 128}, 4, 2)


@triton.jit
def _fa1_kernel(
    q_ptr, k_ptr, v_ptr, acc_ptr, sum_ptr, max_ptr, num_tokens, scale,
    NUM_Q_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, IS_CAUSAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (num_q_heads,); acc (num_tokens, num_q_heads, head_dim) fp32 is the normalised output so far."""
    head = tl.program_id(0)
    kv_head = head // (NUM_Q_HEADS // NUM_KV_HEADS)
    columns = tl.arange(0, HEAD_DIM)
    for first_key in range(0, num_tokens, BLOCK_N):
        keys = first_key + tl.arange(0, BLOCK_N)
        kv_offsets = (keys[:, None] * NUM_KV_HEADS + kv_head) * HEAD_DIM + columns[None, :]
        k = tl.load(k_ptr + kv_offsets, mask=(keys < num_tokens)[:, None], other=0.0)
        v = tl.load(v_ptr + kv_offsets, mask=(keys < num_tokens)[:, None], other=0.0)
        # Query blocks wholly before the keys see none of them.
        first_block = first_key // BLOCK_M * BLOCK_M if IS_CAUSAL else 0
        for first_query in range(first_block, num_tokens, BLOCK_M):
            rows = first_query + tl.arange(0, BLOCK_M)
            is_row = rows < num_tokens
            offsets = (rows[:, None] * NUM_Q_HEADS + head) * HEAD_DIM + columns[None, :]
            q = tl.load(q_ptr + offsets, mask=is_row[:, None], other=0.0)
            old_max = tl.load(max_ptr + head * num_tokens + rows, mask=is_row, other=0.0)
            old_sum = tl.load(sum_ptr + head * num_tokens + rows, mask=is_row, other=0.0)
            acc = tl.load(acc_ptr + offsets, mask=is_row[:, None], other=0.0)
            is_seen = (keys < num_tokens)[None, :]
            if IS_CAUSAL:
                is_seen = is_seen & (keys[None, :] <= rows[:, None])
            scores = tl.where(is_seen, tl.dot(q, k.T) * scale, -1.0e30)
            new_max = tl.maximum(old_max, tl.max(scores, 1))
            p = tl.where(is_seen, tl.exp2(scores - new_max[:, None]), 0.0)
            kept = old_sum * tl.exp2(old_max - new_max)
            new_sum = kept + tl.sum(p, 1)
            # A padding row or one that sees no key yet has a sum of 0.
            divisor = tl.where(new_sum > 0.0, new_sum, 1.0)
            acc = (acc * kept[:, None] + tl.dot(p.to(v.dtype), v)) / divisor[:, None]
            tl.store(acc_ptr + offsets, acc, mask=is_row[:, None])
            tl.store(max_ptr + head * num_tokens + rows, new_max, mask=is_row)
            tl.store(sum_ptr + head * num_tokens + rows, new_sum, mask=is_row)


def fa1_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool = True, config: Config = TILE
) -> torch.Tensor:
    """Returns attention of one sequence, shaped and typed as q, in FlashAttention-1's loop order.

    Raises: ValueError if heads do not fit or tensors are not contiguous.
    """
    check_sequence(q, k, v)
    num_tokens, num_heads, head_dim = q.shape
    acc = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    row_sum = torch.zeros((num_heads, num_tokens), dtype=torch.float32, device=q.device)
    row_max = torch.full_like(row_sum, -1.0e30)
    _fa1_kernel[(num_heads,)](
        q, k, v, acc, row_sum, row_max, num_tokens, head_dim**-0.5 * LOG2_E,
        NUM_Q_HEADS=num_heads, NUM_KV_HEADS=k.shape[1], HEAD_DIM=head_dim, IS_CAUSAL=is_causal,
        **config.launch_options(),
    )  # fmt: skip
    return acc.to(q.dtype)


def fa1_attention_oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool = True
) -> torch.Tensor:
    """Returns what `fa1_attention` should, in float64."""
    return attend(q, k, v, is_causal=is_causal)


def launch_work(
    num_tokens: int, *, num_q_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype,
    sram_bytes_per_sm: float, is_causal: bool = True,
) -> ops.Op:  # fmt: skip
    """Returns the FLOPs and bytes of FlashAttention-1 on an SM with this much shared memory."""
    shape = ops.AttentionShape.grouped_query(num_q_heads, num_kv_heads, head_dim, dtype=DTYPE_NAMES[dtype])
    return ops.flash1_attention(
        shape, seq_len=num_tokens, sram_bytes_per_sm=sram_bytes_per_sm, is_causal=is_causal
    )
