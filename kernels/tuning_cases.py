"""The shapes that tuning measures, each with its candidates, its launch and a reference result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch

from . import (
    attention_decode,
    attention_mla_decode,
    attention_prefill,
    attention_prefill_int8,
    conv2d,
    conv2d_hopper,
    gemm,
    gemm_block_scaled,
    gemm_quantized,
    moe,
    transpose,
)
from .tuning import Config
from .tuning_inputs import Case, Launch, paged, random, sdpa
from .tuning_products import SQUARES, gemm_cases, small_m_cases


def cases() -> Iterator[Case]:
    """Yields every case, families in the order in which they build on one another."""
    yield from gemm_cases()
    yield from quantized_cases()
    yield from prefill_cases()
    yield from decode_cases()
    yield from small_m_cases()
    yield from mla_cases()
    yield from moe_cases()
    yield from conv_cases()
    yield transpose_case()


def quantized_cases() -> Iterator[Case]:
    """Yields fp8 and int8 products with scales per row and column, and block-scaled fp8."""
    for dtype in (torch.float8_e4m3fn, torch.int8):
        for m, n, k in SQUARES:

            def prepare(
                m: int = m, n: int = n, k: int = k, dtype: torch.dtype = dtype
            ) -> tuple[Launch, torch.Tensor]:
                a, b = random(m, k, dtype=dtype), random(n, k, dtype=dtype)
                a_scale, b_scale = (torch.rand(size, device="cuda") + 0.5 for size in (m, n))
                expected = (a.to(torch.bfloat16) @ b.to(torch.bfloat16).T) * a_scale[:, None] * b_scale
                return lambda config: gemm_quantized.scaled_matmul(
                    a, b, a_scale, b_scale, config=config
                ), expected

            candidates = gemm_quantized.candidates(dtype)
            yield Case("gemm_quantized", gemm.DTYPE_NAMES[dtype], (m, n, k), candidates, prepare)
    for m, n, k in SQUARES:

        def prepare_blocks(m: int = m, n: int = n, k: int = k) -> tuple[Launch, torch.Tensor]:
            a, b = (random(rows, k, dtype=torch.float8_e4m3fn) for rows in (m, n))
            a_scale = (torch.rand(k // 128, m, device="cuda") + 0.5).T
            b_scale = torch.rand(n // 128, k // 128, device="cuda") + 0.5
            a_full = a.float() * a_scale.repeat_interleave(128, 1)
            b_full = b.float() * b_scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
            expected = a_full.bfloat16() @ b_full.bfloat16().T
            return (
                lambda config: gemm_block_scaled.block_scaled_matmul(a, b, a_scale, b_scale, config=config)
            ), expected

        yield Case("gemm_block_scaled", "fp8", (m, n, k), gemm_block_scaled.candidates(), prepare_blocks)


def prefill_cases() -> Iterator[Case]:
    """Yields causal prefill of 8 k tokens, 32/8 heads of 128, contiguous and paged, also with int8 scores."""
    tokens, heads, kv_heads, dim = 8192, 32, 8, 128
    for block_size in (0, 64, 16):

        def prepare(
            attend: Callable[..., torch.Tensor], block_size: int = block_size
        ) -> tuple[Launch, torch.Tensor]:
            q, k, v = random(tokens, heads, dim), random(tokens, kv_heads, dim), random(tokens, kv_heads, dim)
            expected = sdpa(q, k, v)
            table = None
            if block_size:
                order_seed = torch.cuda.initial_seed()
                torch.manual_seed(order_seed)
                k, table = paged(k, block_size)
                torch.manual_seed(order_seed)
                v, table = paged(v, block_size)
                table = table[None]
            chunks = attention_prefill.Chunks.of([tokens], [tokens], "cuda", table)
            return lambda config: attend(q, k, v, chunks, config=config), expected

        for kernel, attend in (
            (attention_prefill, attention_prefill.prefill_attention),
            (attention_prefill_int8, attention_prefill_int8.prefill_attention_int8),
        ):
            yield Case(
                kernel.__name__.rpartition(".")[2],
                f"bf16.block{block_size}",
                (tokens, heads, kv_heads, dim),
                kernel.candidates(block_size),
                partial(prepare, attend),
            )


def decode_cases() -> Iterator[Case]:
    """Yields decoding of 32 requests at 8 k: 1 GiB of bf16 keys and values, 4 or 64 queries a KV head."""
    requests, context, kv_heads, dim = 32, 8192, 8, 128
    caches = ((torch.bfloat16, 64), (torch.bfloat16, 16), (torch.float8_e4m3fn, 64), (torch.int8, 64))
    for (dtype, block_size), (heads, query_len) in product(caches, ((32, 1), (64, 8))):

        def prepare(
            dtype: torch.dtype = dtype, block_size: int = block_size, heads: int = heads,
            query_len: int = query_len,
        ) -> tuple[Launch, torch.Tensor]:  # fmt: skip
            pages = requests * context // block_size
            k, v = (random(pages, block_size, kv_heads, dim, dtype=dtype) for _ in range(2))
            q = random(requests, query_len, heads, dim)
            table = torch.randperm(pages, device="cuda").int().view(requests, -1)
            lens = torch.full((requests,), context, dtype=torch.int32, device="cuda")
            factor = 0.01 if dtype == torch.int8 else 1.0
            scales = torch.full((kv_heads,), factor, device="cuda") if dtype.itemsize == 1 else None

            def launch(config: Config | None) -> torch.Tensor:
                return attention_decode.decode_attention(
                    q,
                    k,
                    v,
                    table,
                    lens,
                    max_context_len=context,
                    k_scale=scales,
                    v_scale=scales,
                    config=config,
                )

            reference = attention_decode.decode_attention_oracle(
                q, k, v, table, lens, k_scale=scales, v_scale=scales
            )
            return launch, reference

        shape = (requests, context, kv_heads, query_len * heads // kv_heads, dim)
        variant = f"{gemm.DTYPE_NAMES[dtype]}.block{block_size}"
        yield Case("attention_decode", variant, shape, attention_decode.candidates(block_size), prepare)


def mla_cases() -> Iterator[Case]:
    """Yields DeepSeek-V3's decoding: 128 heads over a latent of 512 + 64, 128 requests at 4 k."""
    requests, context, heads, latent, rope = 128, 4096, 128, 512, 64
    for block_size in (64,):

        def prepare(block_size: int = block_size) -> tuple[Launch, torch.Tensor]:
            pages = requests * context // block_size
            cache, q = random(pages, block_size, latent + rope), random(requests, heads, latent + rope)
            table = torch.randperm(pages, device="cuda").int().view(requests, -1)
            lens = torch.full((requests,), context, dtype=torch.int32, device="cuda")
            scale = (128 + 64) ** -0.5
            outs = []
            for request in range(requests):
                keys = cache[table[request].long()].flatten(0, 1).float()
                weights = (q[request].float() @ keys.T * scale).softmax(-1)
                outs.append(weights @ keys[:, :latent])

            def launch(config: Config | None) -> torch.Tensor:
                return attention_mla_decode.mla_decode_attention(
                    q,
                    cache,
                    table,
                    lens,
                    latent_dim=latent,
                    max_context_len=context,
                    scale=scale,
                    config=config,
                )

            return launch, torch.stack(outs)

        candidates = attention_mla_decode.candidates(block_size)
        variant = f"bf16.block{block_size}"
        yield Case("attention_mla_decode", variant, (requests, context, heads), candidates, prepare)


def moe_cases() -> Iterator[Case]:
    """Yields Mixtral's first product (8 experts) and Qwen3-30B-A3B's (128), for many and for few tokens."""
    for tokens, n, k, num_experts, top_k, block_m in (
        (4096, 28672, 4096, 8, 2, 128), (4096, 1536, 2048, 128, 8, 128), (64, 1536, 2048, 128, 8, 16),
    ):  # fmt: skip

        def prepare(
            tokens: int = tokens, n: int = n, k: int = k, num_experts: int = num_experts, top_k: int = top_k,
            block_m: int = block_m,
        ) -> tuple[Launch, torch.Tensor]:  # fmt: skip
            x, w = random(tokens, k), random(num_experts, n, k)
            _, experts = moe.route(random(tokens, num_experts), top_k)
            plan = moe.plan_tiles(experts, num_experts, block_m)
            expected = torch.empty((tokens * top_k, n), dtype=x.dtype, device="cuda")
            flat = experts.flatten()
            for expert in range(num_experts):
                rows = (flat == expert).nonzero().flatten()
                expected[rows] = x[rows // top_k] @ w[expert].T
            return lambda config: moe.grouped_matmul(x, w, plan, config=config), expected

        shape = (tokens * top_k, n, k, num_experts)
        yield Case("grouped_gemm", f"bf16.rows{block_m}", shape, moe.candidates(block_m), prepare)


CONVOLUTIONS = (
    # batch, height, width, in_channels, out_channels, kernel, stride, padding
    (32, 56, 56, 128, 128, 3, 1, 1),
    (32, 28, 28, 256, 256, 3, 1, 1),
    (32, 14, 14, 512, 512, 3, 1, 1),
    (32, 56, 56, 64, 256, 3, 1, 1),
    (32, 56, 56, 64, 64, 3, 1, 1),
    (32, 112, 112, 64, 128, 3, 2, 1),
    (32, 56, 56, 128, 256, 3, 2, 1),
    (32, 28, 28, 256, 512, 3, 2, 1),
    (8, 448, 448, 3, 1024, 14, 14, 0),
)


def conv_cases() -> Iterator[Case]:
    """Yields a ResNet's convolutions and a vision tower's patch embedding."""
    for batch, height, width, in_channels, out_channels, kernel, stride, padding in CONVOLUTIONS:
        sizes = (batch, height, width, in_channels, out_channels, kernel)

        def prepare(
            sizes: tuple[int, ...] = sizes, stride: int = stride, padding: int = padding
        ) -> tuple[Launch, torch.Tensor]:
            batch, height, width, in_channels, out_channels, kernel = sizes
            x, weight = (
                random(batch, height, width, in_channels),
                random(out_channels, kernel, kernel, in_channels),
            )
            channels_first = (tensor.permute(0, 3, 1, 2) for tensor in (x, weight))
            expected = torch.nn.functional.conv2d(*channels_first, None, stride, padding).permute(0, 2, 3, 1)
            return (
                lambda config: conv2d.conv2d(x, weight, stride=stride, padding=padding, config=config)
            ), expected

        out_size = ((height + 2 * padding - kernel) // stride + 1) * (
            (width + 2 * padding - kernel) // stride + 1
        )
        shape = (batch * out_size, out_channels, in_channels, kernel**2)
        # Elsewhere than on Hopper strided ones gather, too, by the same tiles.
        is_boxed = stride == 1 or in_channels % conv2d_hopper.BLOCK_K == 0
        variant = "bf16.boxes" if is_boxed else "bf16.gather"
        yield Case("conv2d", variant, shape, conv2d.candidates(is_boxed=is_boxed), prepare)


def transpose_case() -> Case:
    """Returns the transpose of 256 MiB of bf16."""

    def prepare() -> tuple[Launch, torch.Tensor]:
        x = random(16384, 8192)
        return lambda config: transpose.transpose(x, config=config), x.T.contiguous()

    return Case("transpose", "16bit", (16384, 8192), transpose.candidates(), prepare)
