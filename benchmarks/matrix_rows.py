"""Products, experts and convolutions beside cuBLAS, `_int_mm`, `_scaled_mm`, `_grouped_mm` and cuDNN."""

# ruff: noqa: B023 (a row is measured before its loop goes on, so its launches see the values they were made
# with)
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn import functional

from simllm.hwmodels import ops
from simllm.kernels import (
    conv2d,
    gemm,
    gemm_block_scaled,
    gemm_quantized,
    gemm_split_k,
    gemm_weight_only,
    moe,
    moe_plan,
)
from simllm.kernels.tuning_cases import CONVOLUTIONS
from simllm.kernels.tuning_inputs import random

from .row import BF16, FP8, INT8, Row


def gemm_rows() -> Iterator[Row]:
    """Yields 16-bit products, large, of few rows, and fused with SiLU-mul."""
    for m, n, k in ((4096,) * 3, (8192,) * 3, (512, 4096, 4096), (2048, 6144, 4096), (2048, 4096, 14336)):
        a, b = random(m, k), random(n, k)
        work = gemm.launch_work(m, n, k, BF16, gemm.default_config(m, BF16))
        yield Row("gemm bf16", f"{m}x{n}x{k}", lambda: gemm.matmul(a, b), lambda: a @ b.T, work)
    for m, n, k in ((128, 4096, 4096), (128, 6144, 4096), (128, 28672, 4096), (160, 4096, 4096)):
        a, b = random(m, k), random(n, k)
        work, shape = gemm.launch_work(m, n, k, BF16, gemm.default_config(m, BF16)), f"{m}x{n}x{k}"
        yield Row("gemm bf16", shape, lambda: gemm.matmul(a, b), lambda: a @ b.T, work)
        yield Row(
            "gemm split-k bf16", shape, lambda: gemm_split_k.matmul_split_k(a, b), lambda: a @ b.T, work
        )
    for m, n, k in ((1, 4096, 4096), (16, 4096, 4096), (16, 28672, 4096), (64, 28672, 4096)):
        a, b = random(m, k), random(n, k)
        shape = f"{m}x{n}x{k}"
        work = gemm_split_k.launch_work(m, n, k, BF16, gemm_split_k.default_config(m))
        yield Row(
            "gemm split-k bf16", shape, lambda: gemm_split_k.matmul_split_k(a, b), lambda: a @ b.T, work,
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
                lambda: a @ b.T, work,
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

            yield Row(f"gemm {name} vs bf16", shape, ours, lambda: left @ right.T, work)
            yield Row(f"gemm {name} vs {name}", shape, ours, torchs, work)
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
            work,
        )  # fmt: skip


def expert_rows() -> Iterator[Row]:
    """Yields grouped products, ours with uneven experts and torch's with even ones."""
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
            moe.launch_work(tokens, n, k, config=moe.default_config(), **sizes),
        )  # fmt: skip


def routing_rows() -> Iterator[Row]:
    """Yields what stands round the grouped products of 128 experts: choice, sorting by expert, summing up."""
    tokens, num_experts, top_k, hidden = 4096, 128, 8, 2048
    logits = random(tokens, num_experts)
    weights, experts = moe.route(logits, top_k)
    shape = f"{tokens} tok {top_k} of {num_experts}"

    def torchs() -> object:
        chosen, which = logits.float().softmax(-1).topk(top_k, dim=-1)
        return chosen / chosen.sum(-1, keepdim=True), which

    yield Row(
        "moe routing", shape, lambda: moe.route(logits, top_k), torchs, ops.route(tokens, num_experts, top_k)
    )
    rows = tokens * top_k
    yield Row(
        "moe plan (sort by expert)", shape, lambda: moe.plan_tiles(experts, num_experts, 128),
        lambda: experts.flatten().argsort(stable=True), moe_plan.launch_work(rows),
    )  # fmt: skip
    y = random(rows, hidden)
    yield Row(
        "moe combine", f"{shape} x{hidden}", lambda: moe.combine(y, weights),
        lambda: (y.view(tokens, top_k, -1) * weights[..., None]).sum(1),
        ops.combine_experts(tokens, top_k, hidden, "bf16"),
    )  # fmt: skip


def convolution_rows() -> Iterator[Row]:
    """Yields the convolutions of a residual network and a patch embedding."""
    for batch, height, width, in_channels, out_channels, kernel, stride, padding in (
        *CONVOLUTIONS, (32, 56, 56, 256, 512, 1, 1, 0),
    ):  # fmt: skip
        x, weight = (
            random(batch, height, width, in_channels),
            random(out_channels, kernel, kernel, in_channels),
        )
        first = [tensor.permute(0, 3, 1, 2) for tensor in (x, weight)]
        pixels = batch * ((height + 2 * padding - kernel) // stride + 1) ** 2
        work = conv2d.launch_work(pixels, out_channels, in_channels, kernel**2, BF16, conv2d.DEFAULT)
        # Once through HBM each, since L2 gives the patches.
        once = 2.0 * (x.numel() + weight.numel() + pixels * out_channels)
        yield Row(
            "conv2d bf16",
            f"{batch}x{height}x{width}x{in_channels}->{out_channels} k{kernel}/{stride}",
            lambda: conv2d.conv2d(x, weight, stride=stride, padding=padding),
            lambda: functional.conv2d(*first, None, stride, padding),
            replace(work, hbm_bytes=once),
        )  # fmt: skip
