"""Attention beside torch's fastest fused one: prefill, also with int8 scores, paged and latent decoding."""

# ruff: noqa: B023 (a row is measured before its loop goes on, so its launches see the values they were made
# with)
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from simllm.kernels import (
    attention_decode,
    attention_mla_decode,
    attention_prefill,
    attention_prefill_int8,
    gemm,
    quantize_keys,
)
from simllm.kernels.tuning_inputs import paged, random, sdpa

from .row import BF16, FP8, INT8, Row


def prefill_rows() -> Iterator[Row]:
    """Yields causal prefill against torch's fastest fused attention (cuDNN's here), which has no int8 scores.

    The share of the matrix rate is bf16's throughout; with int8 scores half of the work could run at twice.
    """
    tokens, heads, kv_heads, dim = 8192, 32, 8, 128
    q, k, v = random(tokens, heads, dim), random(tokens, kv_heads, dim), random(tokens, kv_heads, dim)
    sizes = {"num_q_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim, "dtype": BF16}
    work = attention_prefill.launch_work(tokens, 0, **sizes)

    def torchs() -> torch.Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
            return sdpa(q, k, v)

    for block_size in (0, 64, 16):
        keys, values, table = k, v, None
        if block_size:
            keys, order = paged(k, block_size)
            values, table = torch.empty_like(keys), order[None]
            values[order.long()] = v.unflatten(0, (-1, block_size))
        chunks = attention_prefill.Chunks.of([tokens], [tokens], "cuda", table)
        layout = f"block {block_size}" if block_size else "contiguous"
        shape = f"{tokens} tok {heads}/{kv_heads}x{dim}"
        yield Row(
            f"prefill {layout}", shape,
            lambda: attention_prefill.prefill_attention(q, keys, values, chunks), torchs, work,
        )  # fmt: skip
        yield Row(
            f"prefill int8 QK {layout}", shape,
            lambda: attention_prefill_int8.prefill_attention_int8(q, keys, values, chunks), torchs, work,
            attention_prefill_int8._prefill_int8_kernel,
        )  # fmt: skip
    whole = attention_prefill.Chunks.of([tokens], [tokens], "cuda")
    yield Row(
        "  its keys to int8", f"{tokens} tok {kv_heads}x{dim}",
        lambda: quantize_keys.quantize_keys(k, whole, 64), None,
        quantize_keys.launch_work(tokens, kv_heads, dim, BF16), quantize_keys._quantize_keys_kernel,
    )  # fmt: skip


def decode_rows() -> Iterator[Row]:
    """Yields paged decoding of 32 requests at 8 k of context, and latent decoding of 128 at 4 k."""
    requests, context, heads, kv_heads, dim = 32, 8192, 32, 8, 128
    lens = torch.full((requests,), context, dtype=torch.int32, device="cuda")
    for dtype, block_size in ((BF16, 64), (BF16, 16), (BF16, 128), (FP8, 64), (INT8, 64)):
        pages = requests * context // block_size
        k, v = (random(pages, block_size, kv_heads, dim, dtype=dtype) for _ in range(2))
        table = torch.randperm(pages, device="cuda").int().view(requests, -1)
        scale = torch.ones(kv_heads, device="cuda") * 0.01 if dtype.itemsize == 1 else None
        for query_len in (1, 4) if block_size == 64 else (1,):
            q = random(requests, query_len, heads, dim)
            work = attention_decode.launch_work(
                requests * context, requests, query_len=query_len, num_q_heads=heads, num_kv_heads=kv_heads,
                head_dim=dim, dtype=BF16, kv_dtype=dtype,
            )  # fmt: skip
            yield Row(
                f"decode {gemm.DTYPE_NAMES[dtype]} block {block_size}",
                f"{requests}x{context} {heads}/{kv_heads} q{query_len}",
                lambda: attention_decode.decode_attention(
                    q, k, v, table, lens, max_context_len=context, k_scale=scale, v_scale=scale
                ),
                None, work,
            )  # fmt: skip
    requests, context, heads = 128, 4096, 128
    pages = requests * context // 64
    cache, q = random(pages, 64, 576), random(requests, heads, 576)
    table = torch.randperm(pages, device="cuda").int().view(requests, -1)
    lens = torch.full((requests,), context, dtype=torch.int32, device="cuda")
    work = attention_mla_decode.launch_work(
        requests * context, requests, num_heads=heads, latent_dim=512, rope_dim=64, dtype=BF16
    )
    yield Row(
        "mla decode bf16 block 64", f"{requests}x{context} {heads} heads",
        lambda: attention_mla_decode.mla_decode_attention(
            q, cache, table, lens, latent_dim=512, max_context_len=context, scale=0.07
        ),
        None, work,
    )  # fmt: skip
