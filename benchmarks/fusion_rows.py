"""What fusing brings: one launch of ours beside our launches in turn, with every result in HBM between."""

# ruff: noqa: B023 (a row is measured before its loop goes on, so its launches see the values they were made
# with)
from __future__ import annotations

from collections.abc import Iterator

import torch

from simllm.hwmodels import ops
from simllm.kernels import elementwise, gemm, gemm_split_k, norm, quantize, softmax, softmax_steps
from simllm.kernels.tuning_inputs import random

from .row import BF16, FP8, Row


def fusion_rows() -> Iterator[Row]:
    """Yields norm + quantisation, residual + norm, product + activation, and softmax."""
    for tokens in (512, 32768):
        hidden = 4096
        x, residual, weight = random(tokens, hidden), random(tokens, hidden), random(hidden)
        shape, elements = f"{tokens}x{hidden}", tokens * hidden
        yield Row(
            "norm + fp8 per token", shape, lambda: norm.rms_norm_fp8(x, weight),
            lambda: quantize.quantize_per_token(norm.rms_norm(x, weight)[0], FP8),
            ops.elementwise("rms_norm_fp8", num_read=elements, num_written=elements / 2, dtype="bf16"),
        )  # fmt: skip
        yield Row(
            "residual + norm", shape, lambda: norm.rms_norm(x, weight, residual=residual),
            lambda: norm.rms_norm(torch.add(x, residual), weight),
            norm.launch_work(tokens, hidden, BF16, has_residual=True),
        )  # fmt: skip
        yield Row(
            "softmax", shape, lambda: softmax.softmax(x), lambda: softmax_steps.softmax_in_steps(x),
            softmax.launch_work(tokens, hidden, BF16),
        )  # fmt: skip
    for m in (512, 4096):
        n, k = 14336, 4096
        a, b = random(m, k), random(2 * n, k)
        yield Row(
            "product + SiLU-mul", f"{m}x{n}x{k}", lambda: gemm.matmul_silu_mul(a, b),
            lambda: elementwise.silu_mul(gemm.matmul(a, b)),
            gemm.launch_work(m, 2 * n, k, BF16, gemm.default_config(m, BF16)),
        )  # fmt: skip
    a, b, bias = random(16, 4096), random(4096, 4096), random(4096)
    yield Row(
        "product + bias, split k", "16x4096x4096", lambda: gemm_split_k.matmul_split_k(a, b, bias=bias),
        lambda: torch.add(gemm_split_k.matmul_split_k(a, b), bias),
        gemm.launch_work(16, 4096, 4096, BF16, gemm.default_config(16, BF16)),
    )  # fmt: skip
