"""What HBM binds, beside torch: norms, softmax, SiLU-mul, quantisation, transpose, RoPE and sampling."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

from simllm.hwmodels import ops
from simllm.kernels import (
    elementwise,
    norm,
    probes,
    quantize,
    sampling,
    softmax,
    transpose,
)
from simllm.kernels.tuning_inputs import random

from .row import BF16, FP8, INT8, Row


def row_rows() -> Iterator[Row]:
    """Yields the kernels that HBM binds, over 256 MiB of bf16; torch's copy of as many bytes comes first."""
    for hidden in (4096, 16384):
        tokens = 2**27 // hidden
        yield from norm_rows(tokens, hidden)
        yield from stream_rows(tokens, hidden)
    yield from layout_rows()
    yield from sampling_rows()


def norm_rows(tokens: int, hidden: int) -> Iterator[Row]:
    """Yields the copy, and norms with and without a residual."""
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
        lambda: copied.copy_(x), copy_work,
    )  # fmt: skip
    yield Row(
        "rms_norm", shape, lambda: norm.rms_norm(x, weight),
        lambda: functional.rms_norm(x, (hidden,), weight, 1e-6),
        norm.launch_work(tokens, hidden, BF16, has_residual=False),
    )  # fmt: skip
    yield Row(
        "rms_norm + residual", shape, lambda: norm.rms_norm(x, weight, residual=residual),
        lambda: functional.rms_norm(x + residual, (hidden,), weight, 1e-6),
        norm.launch_work(tokens, hidden, BF16, has_residual=True),
    )  # fmt: skip
    yield Row(
        "layer_norm", shape, lambda: norm.layer_norm(x, weight, bias),
        lambda: functional.layer_norm(x, (hidden,), weight, bias),
        norm.launch_work(tokens, hidden, BF16, has_residual=False, is_layer_norm=True),
    )  # fmt: skip


def stream_rows(tokens: int, hidden: int) -> Iterator[Row]:
    """Yields softmax, SiLU-mul and the quantisations of activations."""
    x, shape = random(tokens, hidden), f"{tokens}x{hidden}"
    yield Row(
        "softmax", shape, lambda: softmax.softmax(x), lambda: torch.softmax(x, -1),
        softmax.launch_work(tokens, hidden, BF16),
    )  # fmt: skip
    yield Row(
        "silu_mul", shape, lambda: elementwise.silu_mul(x),
        lambda: functional.silu(x[:, : hidden // 2]) * x[:, hidden // 2 :],
        elementwise.silu_mul_work(tokens, hidden // 2, BF16),
    )  # fmt: skip
    quantize_work = quantize.launch_work(tokens, hidden, BF16, FP8)
    yield Row(
        "quantize fp8 per token", shape, lambda: quantize.quantize_per_token(x, FP8), None, quantize_work,
    )  # fmt: skip
    yield Row(
        "quantize fp8 1x128", shape, lambda: quantize.quantize_per_group(x, FP8), None, quantize_work,
    )  # fmt: skip
    yield Row(
        "quantize int8 per token", shape, lambda: quantize.quantize_per_token(x, INT8), None,
        quantize_work,
    )  # fmt: skip


def layout_rows() -> Iterator[Row]:
    """Yields the transpose and rotary positions."""
    x = random(16384, 8192)
    yield Row(
        "transpose", "16384x8192", lambda: transpose.transpose(x), lambda: x.T.contiguous(),
        transpose.launch_work(16384, 8192, BF16),
    )  # fmt: skip
    q, k = random(32768, 32, 128), random(32768, 8, 128)
    angles, positions = elementwise.rope_table(32768, 128).cuda(), torch.arange(32768, device="cuda")
    yield Row(
        "rope", "32768 tok 32/8x128", lambda: elementwise.rope_(q, k, positions, angles), None,
        elementwise.rope_work(32768, 40, 128, BF16),
    )  # fmt: skip


def sampling_rows() -> Iterator[Row]:
    """Yields the draw of a token from a large vocabulary."""
    logits, ones = random(256, 128_256), torch.ones(256, device="cuda")
    top_ks, top_ps = torch.full((256,), 50, dtype=torch.int32, device="cuda"), ones * 0.9
    work = sampling.launch_work(256, 128_256, BF16)
    yield Row(
        "sample top-k 50, top-p 0.9", "256x128256",
        lambda: sampling.sample(logits, ones, top_ks, top_ps, seed=1),
        lambda: sorted_sample(logits, 50, 0.9), work,
    )  # fmt: skip


def sorted_sample(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Returns a draw by sorting, as torch users write it."""
    values, order = logits.float().sort(dim=-1, descending=True)
    weights = values[:, :top_k].softmax(-1)
    weights = weights.masked_fill(weights.cumsum(-1) - weights >= top_p, 0.0)
    return order.gather(1, weights.multinomial(1))
