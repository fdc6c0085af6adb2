"""The products of 16-bit activations that tuning measures: large, of few rows, with 8- and 4-bit weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from . import gemm, gemm_split_k, gemm_weight_only
from .tuning_inputs import Case, Launch, random

SQUARES = ((4096, 4096, 4096), (8192, 8192, 8192))
# Rows of decoding batches, by weights: o, qkv, gate and up, down of Llama-3.1-8B, and o of the 70B. Between
# the two limits both kernels are measured, and `linear` takes the faster.
WEIGHTS = ((4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336), (8192, 8192))
FEW_ROWS = (1, 16, 32, 64, 96, 128, 160, 256, 384, 512)
LEAST_TILED_ROWS, MOST_SPLIT_ROWS = 96, 256
SMALL_M_SHAPES = tuple((m, n, k) for m in FEW_ROWS if m <= MOST_SPLIT_ROWS for n, k in WEIGHTS)
GEMM_SHAPES = (
    *SQUARES, (2048, 6144, 4096), (2048, 4096, 14336), (100352, 512, 256),
    *((m, n, k) for m in FEW_ROWS if m >= LEAST_TILED_ROWS for n, k in WEIGHTS),
)  # fmt: skip


def gemm_cases() -> Iterator[Case]:
    """Yields bf16 products, plain and with SiLU-mul."""
    for m, n, k in GEMM_SHAPES:

        def prepare(m: int = m, n: int = n, k: int = k) -> tuple[Launch, torch.Tensor]:
            a, b = random(m, k), random(n, k)
            return lambda config: gemm.matmul(a, b, config=config), a @ b.T

        tried = gemm.candidates(torch.bfloat16, few_rows=m <= FEW_ROWS[-1])
        yield Case("gemm", "bf16", (m, n, k), tried, prepare)

    def prepare_silu() -> tuple[Launch, torch.Tensor]:
        a, b = random(4096, 4096), random(2 * 14336, 4096)
        gate, up = (a @ b.T).float().chunk(2, dim=1)
        return lambda config: gemm.matmul_silu_mul(a, b, config=config), torch.nn.functional.silu(gate) * up

    silu_candidates = gemm.candidates(torch.bfloat16, silu_mul=True)
    yield Case("gemm_silu_mul", "bf16", (4096, 14336, 4096), silu_candidates, prepare_silu)


def small_m_cases() -> Iterator[Case]:
    """Yields products of few rows with bf16, int8 and int4 weights."""
    for m, n, k in SMALL_M_SHAPES:

        def prepare(m: int = m, n: int = n, k: int = k) -> tuple[Launch, torch.Tensor]:
            a, b = random(m, k), random(n, k)
            return lambda config: gemm_split_k.matmul_split_k(a, b, config=config), a @ b.T

        yield Case("gemm_split_k", "bf16", (m, n, k), gemm_split_k.candidates(m), prepare)
    for variant in ("int8", "int4"):
        for m, n, k in ((16, 4096, 4096), (16, 28672, 4096), (64, 28672, 4096)):

            def prepare_codes(
                variant: str = variant, m: int = m, n: int = n, k: int = k
            ) -> tuple[Launch, torch.Tensor]:
                a, weight = random(m, k), random(n, k)
                encode = (
                    gemm_weight_only.quantize_int8 if variant == "int8" else gemm_weight_only.quantize_int4
                )
                parts = encode(weight)
                expected = a @ gemm_weight_only.dequantize(*parts).to(a.dtype).T
                return lambda config: gemm_weight_only.weight_only_matmul(a, *parts, config=config), expected

            yield Case("gemm_weight_only", variant, (m, n, k), gemm_weight_only.candidates(m), prepare_codes)
