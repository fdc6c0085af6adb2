"""Decode attention over a latent cache (MLA, absorbed): one head is key and value of all queries.

Shapes: q (num_requests, num_heads, 576), the query absorbed into the latent space, 512 latent then 64 rotary
columns; cache (num_blocks, block_size, 576); out (num_requests, num_heads, 512), still latent: the value
product follows outside. block_table int32 (num_requests, max_blocks), context_lens int32 (num_requests,).
Papers: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C. Each cached token is read once and used
2 * num_heads times per column, so that the matrix units bind rather than HBM: 242 FLOPs a byte at 128 heads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from . import attention_mla_hopper
from .attention_decode import choose_splits
from .attention_prefill import LOG2_E, gather_pages
from .attention_splits import reduce_splits
from .gemm import DTYPE_NAMES
from .tuning import Config, tuned_config

MIN_HEADS = 16  # rows of the smallest matrix instruction


@triton.jit
def _mla_decode_kernel(
    q_desc, q_rope_desc, latent_desc, rope_desc, table_ptr, context_lens_ptr, partial_ptr, lse_ptr,
    # dimensions
    table_stride, scale,
    # shape of the heads
    NUM_HEADS: tl.constexpr, LATENT: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    # meta-parameters
    BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (head blocks, num_splits, num_requests); partial (requests, splits, heads, latent)."""
    first_head = tl.program_id(0) * BLOCK_H
    split = tl.program_id(1)
    request = tl.program_id(2)
    context_len = tl.load(context_lens_ptr + request)
    tiles_per_split = tl.cdiv(tl.cdiv(context_len, BLOCK_N), tl.num_programs(1))
    first_key = split * tiles_per_split * BLOCK_N
    last_key = tl.minimum(first_key + tiles_per_split * BLOCK_N, context_len)
    q = q_desc.load([request * NUM_HEADS + first_head, 0])
    q_rope = q_rope_desc.load([request * NUM_HEADS + first_head, LATENT])
    table_ptr += request * table_stride
    block = tl.load(table_ptr + tl.minimum(first_key, context_len - 1) // BLOCK_SIZE)
    acc = tl.zeros((BLOCK_H, LATENT), dtype=tl.float32)
    row_sum = tl.zeros((BLOCK_H,), dtype=tl.float32)
    row_max = tl.full((BLOCK_H,), -1.0e30, dtype=tl.float32)
    for start in tl.range(first_key, last_key, BLOCK_N):
        row = block * BLOCK_SIZE + start % BLOCK_SIZE
        # The next tile's block is looked up one tile ahead, so that its copy does not wait for the lookup.
        block = tl.load(table_ptr + tl.minimum(start + BLOCK_N, last_key - 1) // BLOCK_SIZE)
        latent = latent_desc.load([row, 0])
        scores = tl.dot(q_rope, rope_desc.load([row, LATENT]).T)
        scores = tl.dot(q, latent.T, scores) * scale
        is_seen = start + tl.arange(0, BLOCK_N) < context_len
        scores = tl.where(is_seen[None, :], scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        p = tl.exp2(scores - new_max[:, None])
        correction = tl.exp2(row_max - new_max)
        row_sum = row_sum * correction + tl.sum(p, 1)
        acc = tl.dot(p.to(latent.dtype), latent, acc * correction[:, None])
        row_max = new_max
    is_any = row_sum > 0.0
    row_sum = tl.where(is_any, row_sum, 1.0)
    heads = first_head + tl.arange(0, BLOCK_H)
    out_rows = (request.to(tl.int64) * tl.num_programs(1) + split) * NUM_HEADS + heads
    is_head = heads < NUM_HEADS
    targets = partial_ptr + out_rows[:, None] * LATENT + tl.arange(0, LATENT)[None, :]
    tl.store(targets, (acc / row_sum[:, None]).to(partial_ptr.dtype.element_ty), mask=is_head[:, None])
    tl.store(lse_ptr + out_rows, tl.where(is_any, row_max + tl.log2(row_sum), -1.0e30), mask=is_head)


def candidates(block_size: int) -> list[Config]:
    """Returns the configurations that tuning tries; a page must hold whole tiles of keys."""
    return [
        Config({"BLOCK_H": block_h, "BLOCK_N": block_n}, warps, stages, ctas)
        for block_h, warps in ((64, 8), (32, 4), (16, 4))
        for block_n in (16, 32, 64)
        if block_size % block_n == 0
        for stages in (1, 2, 3)
        for ctas in (1, 2, 4)
    ]


def default_config(num_heads: int, block_size: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    block_h = max(MIN_HEADS, min(64, triton.next_power_of_2(num_heads)))
    return Config(
        {"BLOCK_H": block_h, "BLOCK_N": min(32, block_size)}, 8 if block_h == 64 else 4, 2, ctas_per_sm=2
    )


def mla_decode_attention(
    q: torch.Tensor, cache: torch.Tensor, block_table: torch.Tensor, context_lens: torch.Tensor, *,
    latent_dim: int, max_context_len: int, scale: float, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns latent outputs (num_requests, num_heads, latent_dim), typed as q.

    On Hopper, DeepSeek's sizes run on `attention_mla_hopper` unless a config asks for the portable kernel.
    scale: of the scores; the model's own head size sets it, (128 + 64) ** -0.5 in DeepSeek-V3.
    Raises: ValueError if shapes, dtypes or layouts do not fit.
    """
    _check(q, cache, latent_dim)
    num_requests, num_heads, _ = q.shape
    is_hopper = config is None and attention_mla_hopper.is_supported(q, cache, latent_dim)
    chosen = config or _choose_config(q, cache.shape[1], max_context_len)
    if is_hopper:
        splits = attention_mla_hopper.splits_of(q, max_context_len)
    else:
        programs = num_requests * triton.cdiv(num_heads, chosen.meta["BLOCK_H"])
        splits = choose_splits(
            chosen, num_programs=programs, max_context_len=max_context_len, device=q.device
        )
    out = q.new_empty((num_requests, num_heads, latent_dim))
    partial = out if splits == 1 else q.new_empty((num_requests, splits, *out.shape[1:]), dtype=torch.float32)
    lse = q.new_empty((num_requests, splits, num_heads), dtype=torch.float32)
    if is_hopper:
        attention_mla_hopper.launch_hopper(
            q, cache, block_table, context_lens, partial, lse, num_splits=splits, scale=scale * LOG2_E
        )
    else:
        _launch(q, cache, block_table, context_lens, partial, lse, splits, scale * LOG2_E, chosen)
    if splits > 1:
        reduce_splits(partial, lse, out)
    return out


def _choose_config(q: torch.Tensor, block_size: int, max_context_len: int) -> Config:
    num_requests, num_heads, _ = q.shape
    variant = f"{DTYPE_NAMES[q.dtype]}.block{block_size}"
    tuned = tuned_config(
        "attention_mla_decode", variant, (num_requests, max_context_len, num_heads), q.device
    )
    return tuned or default_config(num_heads, block_size)


def _launch(
    q: torch.Tensor, cache: torch.Tensor, block_table: torch.Tensor, context_lens: torch.Tensor,
    partial: torch.Tensor, lse: torch.Tensor, num_splits: int, scale: float, config: Config,
) -> None:  # fmt: skip
    num_requests, num_heads, width = q.shape
    block_h, block_n = config.meta["BLOCK_H"], config.meta["BLOCK_N"]
    latent_dim = partial.shape[-1]
    q_rows, cache_rows = q.view(-1, width), cache.view(-1, width)
    _mla_decode_kernel[(triton.cdiv(num_heads, block_h), num_splits, num_requests)](
        TensorDescriptor.from_tensor(q_rows, [block_h, latent_dim]),
        TensorDescriptor.from_tensor(q_rows, [block_h, width - latent_dim]),
        TensorDescriptor.from_tensor(cache_rows, [block_n, latent_dim]),
        TensorDescriptor.from_tensor(cache_rows, [block_n, width - latent_dim]),
        block_table, context_lens, partial, lse, block_table.stride(0), scale,
        NUM_HEADS=num_heads, LATENT=latent_dim, BLOCK_SIZE=cache.shape[1], **config.launch_options(),
    )  # fmt: skip


def _check(q: torch.Tensor, cache: torch.Tensor, latent_dim: int) -> None:
    if q.ndim != 3 or cache.ndim != 3 or q.shape[2] != cache.shape[2] or q.dtype != cache.dtype:
        raise ValueError(
            f"q and cache do not fit: {tuple(q.shape)} {q.dtype}, {tuple(cache.shape)} {cache.dtype}"
        )
    rope_dim = q.shape[2] - latent_dim
    if rope_dim < MIN_HEADS or any(dim & (dim - 1) for dim in (latent_dim, rope_dim)):
        raise ValueError(f"latent and rotary columns must be powers of two, got {latent_dim} and {rope_dim}")
    if not (q.is_contiguous() and cache.is_contiguous()):
        raise ValueError("q and cache must be contiguous")


def mla_decode_oracle(
    q: torch.Tensor, cache: torch.Tensor, block_table: torch.Tensor, context_lens: torch.Tensor, *,
    latent_dim: int, scale: float,
) -> torch.Tensor:  # fmt: skip
    """Returns what `mla_decode_attention` should, in float64, one request after another."""
    outs = []
    for request, context_len in enumerate(context_lens.tolist()):
        keys = gather_pages(cache, block_table[request], context_len).double()
        weights = (q[request].double() @ keys.T * scale).softmax(-1)
        outs.append(weights @ keys[:, :latent_dim])
    return torch.stack(outs)


def launch_work(
    sum_context: int, num_requests: int, *, num_heads: int, latent_dim: int, rope_dim: int, dtype: torch.dtype
) -> ops.Op:
    """Returns the FLOPs and bytes of decoding `num_requests` requests with `sum_context` cached tokens."""
    name = DTYPE_NAMES[dtype]
    kv_bytes = float((latent_dim + rope_dim) * dtype.itemsize)
    shape = ops.mla_absorbed(
        num_heads, kv_lora_rank=latent_dim, qk_rope_head_dim=rope_dim, dtype=name, kv_bytes_per_token=kv_bytes
    )
    return ops.decode_attention(shape, sum_context=sum_context, count=num_requests)
