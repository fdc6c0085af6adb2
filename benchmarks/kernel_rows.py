"""The rows of the kernel benchmark: our launch and torch's over the same random inputs, and its work."""

# ruff: noqa: B023 (a row is measured before its loop goes on, so its launches see the values they were made
# with)
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from simllm.hwmodels import ops
from simllm.kernels import (
    attention_decode,
    attention_mla_decode,
    attention_mla_hopper,
    attention_prefill,
    conv2d,
    elementwise,
    gemm,
    gemm_block_scaled,
    gemm_quantized,
    gemm_split_k,
    gemm_weight_only,
    moe,
    norm,
    probes,
    quantize,
    sampling,
    softmax,
    transpose,
)
from simllm.kernels.tuning_cases import CONVOLUTIONS
from simllm.kernels.tuning_inputs import paged, random, sdpa

BF16, FP8, INT8 = torch.bfloat16, torch.float8_e4m3fn, torch.int8

Launch = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: our launch, torch's (None if it has none), the work, the kernel to look into."""

    name: str
    shape: str
    ours: Launch
    torchs: Launch | None
    work: ops.Op
    kernel: Any


def gemm_rows() -> Iterator[Row]:
    """Yields 16-bit products, large, of few rows, and fused with SiLU-mul."""
    for m, n, k in ((4096,) * 3, (8192,) * 3, (512, 4096, 4096), (2048, 6144, 4096), (2048, 4096, 14336)):
        a, b = random(m, k), random(n, k)
        work = gemm.launch_work(m, n, k, BF16, gemm.default_config(m, BF16))
        yield Row(
            "gemm bf16", f"{m}x{n}x{k}", lambda: gemm.matmul(a, b), lambda: a @ b.T, work, gemm._gemm_kernel
        )
    for m, n, k in ((1, 4096, 4096), (16, 4096, 4096), (16, 28672, 4096), (64, 28672, 4096)):
        a, b = random(m, k), random(n, k)
        shape = f"{m}x{n}x{k}"
        work = gemm_split_k.launch_work(m, n, k, BF16, gemm_split_k.default_config(m))
        yield Row(
            "gemm split-k bf16", shape, lambda: gemm_split_k.matmul_split_k(a, b), lambda: a @ b.T, work,
            gemm_split_k._split_k_kernel,
        )  # fmt: skip
        for variant, encode in (
            ("int8", gemm_weight_only.quantize_int8),
            ("int4", gemm_weight_only.quantize_int4),
        ):
            parts = encode(b)
            config = gemm_weight_only.default_config(m)
            work = gemm_weight_only.launch_work(m, n, k, BF16, variant, config)
            yield Row(
                f"gemm {variant} weights", shape, lambda: gemm_weight_only.weight_only_matmul(a, *parts),
                lambda: a @ b.T, work, gemm_weight_only._weight_only_kernel,
            )  # fmt: skip
    a, b = random(4096, 4096), random(2 * 14336, 4096)
    work = gemm.launch_work(4096, 2 * 14336, 4096, BF16, gemm.default_config(4096, BF16))

    def unfused() -> torch.Tensor:
        gate, up = (a @ b.T).chunk(2, dim=1)
        return functional.silu(gate) * up

    yield Row(
        "gemm + silu-mul bf16",
        "4096x14336x4096",
        lambda: gemm.matmul_silu_mul(a, b),
        unfused,
        work,
        gemm._gemm_kernel,
    )


def quantized_rows() -> Iterator[Row]:
    """Yields 8-bit products against torch's bf16 product, and against torch's own 8-bit one."""
    for size in (4096, 8192):
        left, right = random(size, size), random(size, size)
        ones = torch.ones(size, device="cuda")
        shape = f"{size}^3"
        for dtype in (FP8, INT8):
            a, b = random(size, size, dtype=dtype), random(size, size, dtype=dtype)
            name = gemm.DTYPE_NAMES[dtype]
            work = gemm_quantized.launch_work(size, size, size, dtype, gemm.default_config(size, dtype))

            def ours() -> torch.Tensor:
                return gemm_quantized.scaled_matmul(a, b, ones, ones)

            def torchs() -> torch.Tensor:
                if dtype == INT8:
                    return torch._int_mm(a, b.T)
                row, column = ones[:, None], ones[None, :]
                return torch._scaled_mm(
                    a, b.T, scale_a=row, scale_b=column, out_dtype=BF16, use_fast_accum=True
                )

            yield Row(f"gemm {name} vs bf16", shape, ours, lambda: left @ right.T, work, gemm._gemm_kernel)
            yield Row(f"gemm {name} vs {name}", shape, ours, torchs, work, gemm._gemm_kernel)
        a, b = random(size, size, dtype=FP8), random(size, size, dtype=FP8)
        a_scale, b_scale = (
            torch.rand(size // 128, size, device="cuda").T,
            torch.rand(2 * (size // 128,), device="cuda"),
        )
        work = gemm_block_scaled.launch_work(size, size, size, gemm_block_scaled.default_config(size))
        yield Row(
            "gemm fp8 1x128 scales", shape,
            lambda: gemm_block_scaled.block_scaled_matmul(a, b, a_scale, b_scale),
            lambda: torch._scaled_mm(a, b.T, scale_a=a_scale, scale_b=b_scale.T, out_dtype=BF16),
            work, gemm_block_scaled._block_scaled_kernel,
        )  # fmt: skip


def prefill_rows() -> Iterator[Row]:
    """Yields causal prefill against torch's fastest fused attention (cuDNN's here)."""
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
        yield Row(
            f"prefill {f'block {block_size}' if block_size else 'contiguous'}",
            f"{tokens} tok {heads}/{kv_heads}x{dim}",
            lambda: attention_prefill.prefill_attention(q, keys, values, chunks), torchs, work,
            attention_prefill._prefill_kernel,
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
                None, work, attention_decode._decode_kernel,
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
        None, work, attention_mla_hopper._mla_hopper_kernel,
    )  # fmt: skip


def row_rows() -> Iterator[Row]:
    """Yields the kernels that HBM binds, over 256 MiB of bf16; torch's copy of as many bytes comes first."""
    for hidden in (4096, 16384):
        tokens = 2**27 // hidden
        x, residual, weight, bias = (
            random(tokens, hidden),
            random(tokens, hidden),
            random(hidden),
            random(hidden),
        )
        copied, shape = torch.empty_like(x), f"{tokens}x{hidden}"
        copy_work = ops.elementwise("copy", num_read=x.numel(), num_written=x.numel(), dtype="bf16")
        flat = x.view(torch.int32).view(-1)
        yield Row(
            "copy", shape, lambda: probes.copy(flat, copied.view(torch.int32).view(-1)),
            lambda: copied.copy_(x), copy_work, probes._copy_kernel,
        )  # fmt: skip
        yield Row(
            "rms_norm", shape, lambda: norm.rms_norm(x, weight),
            lambda: functional.rms_norm(x, (hidden,), weight, 1e-6),
            norm.launch_work(tokens, hidden, BF16, has_residual=False), norm._norm_kernel,
        )  # fmt: skip
        yield Row(
            "rms_norm + residual", shape, lambda: norm.rms_norm(x, weight, residual=residual),
            lambda: functional.rms_norm(x + residual, (hidden,), weight, 1e-6),
            norm.launch_work(tokens, hidden, BF16, has_residual=True), norm._norm_kernel,
        )  # fmt: skip
        yield Row(
            "layer_norm", shape, lambda: norm.layer_norm(x, weight, bias),
            lambda: functional.layer_norm(x, (hidden,), weight, bias),
            norm.launch_work(tokens, hidden, BF16, has_residual=False, is_layer_norm=True), norm._norm_kernel,
        )  # fmt: skip
        yield Row(
            "softmax", shape, lambda: softmax.softmax(x), lambda: torch.softmax(x, -1),
            softmax.launch_work(tokens, hidden, BF16), softmax._softmax_kernel,
        )  # fmt: skip
        yield Row(
            "silu_mul", shape, lambda: elementwise.silu_mul(x),
            lambda: functional.silu(x[:, : hidden // 2]) * x[:, hidden // 2 :],
            elementwise.silu_mul_work(tokens, hidden // 2, BF16), elementwise._silu_mul_kernel,
        )  # fmt: skip
        quantize_work = quantize.launch_work(tokens, hidden, BF16, FP8)
        yield Row(
            "quantize fp8 per token", shape, lambda: quantize.quantize_per_token(x, FP8), None, quantize_work,
            quantize._per_token_kernel,
        )  # fmt: skip
        yield Row(
            "quantize fp8 1x128", shape, lambda: quantize.quantize_per_group(x, FP8), None, quantize_work,
            quantize._per_group_kernel,
        )  # fmt: skip
        norm_then = ops.elementwise(
            "rms_norm_fp8", num_read=x.numel(), num_written=x.numel() / 2, dtype="bf16", flops=8.0 * x.numel()
        )

        def in_turn() -> object:
            return quantize.quantize_per_token(norm.rms_norm(x, weight)[0], FP8)

        yield Row(
            "norm + fp8 vs in turn",
            shape,
            lambda: norm.rms_norm_fp8(x, weight),
            in_turn,
            norm_then,
            norm._norm_kernel,
        )
    x = random(16384, 8192)
    yield Row(
        "transpose", "16384x8192", lambda: transpose.transpose(x), lambda: x.T.contiguous(),
        transpose.launch_work(16384, 8192, BF16), transpose._transpose_kernel,
    )  # fmt: skip
    q, k = random(32768, 32, 128), random(32768, 8, 128)
    angles, positions = elementwise.rope_table(32768, 128).cuda(), torch.arange(32768, device="cuda")
    yield Row(
        "rope", "32768 tok 32/8x128", lambda: elementwise.rope_(q, k, positions, angles), None,
        elementwise.rope_work(32768, 40, 128, BF16), elementwise._rope_kernel,
    )  # fmt: skip
    logits, ones = random(256, 128_256), torch.ones(256, device="cuda")
    top_ks, top_ps = torch.full((256,), 50, dtype=torch.int32, device="cuda"), ones * 0.9
    work = sampling.launch_work(256, 128_256, BF16)
    yield Row(
        "sample top-k 50, top-p 0.9", "256x128256",
        lambda: sampling.sample(logits, ones, top_ks, top_ps, seed=1),
        lambda: sorted_sample(logits, 50, 0.9), work, sampling._sample_kernel,
    )  # fmt: skip


def sorted_sample(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Returns a draw by sorting, as torch users write it."""
    values, order = logits.float().sort(dim=-1, descending=True)
    weights = values[:, :top_k].softmax(-1)
    weights = weights.masked_fill(weights.cumsum(-1) - weights >= top_p, 0.0)
    return order.gather(1, weights.multinomial(1))


def expert_rows() -> Iterator[Row]:
    """Yields grouped products, ours with uneven experts and torch's with even ones, and convolutions."""
    for tokens, n, k, num_experts, top_k, block_m in (
        (4096, 28672, 4096, 8, 2, 128), (4096, 1536, 2048, 128, 8, 128), (64, 1536, 2048, 128, 8, 16),
    ):  # fmt: skip
        x, w, rows = random(tokens, k), random(num_experts, n, k), random(tokens * top_k, k)
        _, experts = moe.route(random(tokens, num_experts), top_k)
        plan = moe.plan_tiles(experts, num_experts, block_m)
        ends = torch.linspace(0, tokens * top_k, num_experts + 1, device="cuda").int()[1:]
        sizes = {"num_experts": num_experts, "top_k": top_k, "dtype": BF16, "block_m": block_m}
        yield Row(
            "grouped gemm bf16", f"{tokens}x{n}x{k} {top_k} of {num_experts}",
            lambda: moe.grouped_matmul(x, w, plan),
            lambda: torch._grouped_mm(rows, w.transpose(1, 2), offs=ends),
            moe.launch_work(tokens, n, k, config=moe.default_config(), **sizes), moe._grouped_gemm_kernel,
        )  # fmt: skip
    for batch, height, width, in_channels, out_channels, kernel, stride, padding in (
        *CONVOLUTIONS, (32, 56, 56, 256, 512, 1, 1, 0),
    ):  # fmt: skip
        x, weight = (
            random(batch, height, width, in_channels),
            random(out_channels, kernel, kernel, in_channels),
        )
        first = [tensor.permute(0, 3, 1, 2) for tensor in (x, weight)]
        pixels = batch * ((height + 2 * padding - kernel) // stride + 1) ** 2
        looked_into = (
            gemm._gemm_kernel if kernel == 1 else conv2d._box_kernel if stride == 1 else conv2d._gather_kernel
        )
        yield Row(
            "conv2d bf16", f"{batch}x{height}x{width}x{in_channels}->{out_channels} k{kernel}",
            lambda: conv2d.conv2d(x, weight, stride=stride, padding=padding),
            lambda: functional.conv2d(*first, None, stride, padding),
            conv2d.launch_work(pixels, out_channels, in_channels, kernel**2, BF16, conv2d.DEFAULT),
            looked_into,
        )  # fmt: skip


GROUPS = {
    "gemm": gemm_rows,
    "quantized": quantized_rows,
    "prefill": prefill_rows,
    "decode": decode_rows,
    "rows": row_rows,
    "experts": expert_rows,
}
