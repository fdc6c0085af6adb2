"""Mixture of experts: how many experts a step touches, and the grouped products over them."""

from __future__ import annotations

from math import ceil, expm1, log1p

from ...units import DTYPE_BYTES
from .gemm import DEQUANTISE_FLOPS, GEMM_TILES, WARPGROUP_ROWS, Tile
from .op import Op, Sizes

# Rows for each expert, over 1, from which aligning them pays. Source: vLLM, fused_moe.py: 4.
FEW_ROWS = 4
# Two kernels of one block each at most: 10.0 us for 4,096 rows of 128 experts and 20.3 us for 32,768, the
# gaps around them included, of which 4.6 us are counted as those of two kernels.
# Source: SGLang pull request 14133, bench_moe_align_block_size (a Hopper GPU).
ALIGN_S = 3.9e-6
ALIGN_ROW_S = 0.36e-9


def expected_distinct_experts(num_experts: int, top_k: float, num_tokens: int) -> float:
    """Returns how many experts at least one of `num_tokens` tokens picks, E (1 - (1 - k/E)^T).

    256 experts, top 8: 8 for one token, 163.3 for 32, 251.6 for 128.
    SIMPLIFIED: tokens route independently and evenly; effect: skewed routing touches fewer experts.
    """
    if top_k >= num_experts:
        return float(num_experts if num_tokens else 0)
    return -num_experts * expm1(num_tokens * log1p(-top_k / num_experts))


def grouped_gemm(
    num_tokens: int,
    n: int,
    k: int,
    dtype: str,
    *,
    num_experts: int,
    top_k: int,
    weight_dtype: str | None = None,
    weight_scale_bytes: float = 0.0,
    picks: float | None = None,
    skew: float = 0.0,
    tile: Tile = GEMM_TILES[0],
) -> Op:
    """Returns one product per expert, in one launch: num_tokens * top_k rows by (n, k) weights each.

    Only the touched experts' weights are read. Each touched expert has the mean number of rows, padded to
    the tile. Rows are gathered: HBM holds every copy of a token.
    picks: how many of a token's `top_k` experts are among the `num_experts` of this rank; None for all.
    SIMPLIFIED: `skew` counts where the product was measured; effect: a datasheet device reads some experts
    that nobody chose.
    """
    is_shared = picks is not None
    if picks is None:
        picks = top_k
    in_bytes = DTYPE_BYTES[dtype]
    weight_bytes = DTYPE_BYTES[weight_dtype or dtype] + weight_scale_bytes
    rows = num_tokens * picks
    experts = expected_distinct_experts(num_experts, picks, num_tokens)
    # Tokens that all pick every expert give a ratio a rounding error above a whole number of tiles.
    tiles_per_expert = ceil(rows / (experts * tile.m) - 1e-9) * ceil(n / tile.n) if rows else 0
    num_tiles = experts * tiles_per_expert
    widened = 0.0 if weight_dtype in (None, dtype) else num_tiles * min(tile.n, n) * k
    warpgroups = ceil(tile.m / WARPGROUP_ROWS)
    panel = min(tile.m, WARPGROUP_ROWS) + tile.n
    return Op(
        kind="grouped_gemm",
        flops=2.0 * rows * n * k,
        issued_flops=2.0 * num_tiles * tile.m * tile.n * k,
        num_tiles=num_tiles,
        vector_flops=DEQUANTISE_FLOPS * widened,
        hbm_bytes=rows * (n + k) * in_bytes + experts * n * k * weight_bytes,
        l2_bytes=num_tiles * k * (tile.m * in_bytes + tile.n * weight_bytes),
        sram_bytes=num_tiles * k * warpgroups * panel * in_bytes,
        dtype=dtype,
        sizes=Sizes(num_tokens, n, k, num_experts, top_k, is_shared * picks, skew)
        if weight_dtype in (None, dtype)
        else None,
    )


def grouped_gemm_candidates(
    num_tokens: int,
    n: int,
    k: int,
    dtype: str,
    *,
    num_experts: int,
    top_k: int,
    weight_dtype: str | None = None,
    weight_scale_bytes: float = 0.0,
    picks: float | None = None,
    skew: float = 0.0,
) -> tuple[Op, ...]:
    """Returns the grouped product once per tile that a kernel's tuning table would try."""
    return tuple(
        grouped_gemm(
            num_tokens, n, k, dtype,
            num_experts=num_experts, top_k=top_k, weight_dtype=weight_dtype,
            weight_scale_bytes=weight_scale_bytes, picks=picks, skew=skew, tile=tile,
        )
        for tile in GEMM_TILES
    )  # fmt: skip


def route(num_tokens: int, num_experts: int, top_k: int) -> Op:
    """Returns the choice of experts after the router's product: softmax and top-k.

    The router's product itself is a `gemm` of (num_tokens, num_experts, hidden_size).
    num_kernels: softmax + top-k, and a buffer filled.
    """
    logits = num_tokens * num_experts
    return Op(
        kind="route",
        flops=float(logits * 8),
        hbm_bytes=logits * 4 + num_tokens * top_k * 8,
        dtype="fp32",
        unit="vector",
        num_kernels=2,
    )


def needs_alignment(num_tokens: int, num_experts: int, top_k: int) -> bool:
    """Returns whether rows are put in the order of their experts; few ones have a tile each instead.

    Source: vLLM, fused_moe.py, `naive_block_assignment`; never so under expert parallelism.
    """
    return num_tokens * top_k * FEW_ROWS > num_experts


def align_experts(num_tokens: int, top_k: int) -> Op:
    """Returns the order of rows by expert, padded to tiles: one block counts, then rows go there."""
    picks = num_tokens * top_k
    return Op(
        kind="align_experts",
        flops=float(picks * 8),
        hbm_bytes=picks * 2 * 8,
        dtype="fp32",
        unit="vector",
        num_kernels=2,
        latency_s=ALIGN_S + ALIGN_ROW_S * picks,
    )


def combine_experts(num_tokens: int, top_k: int, hidden_size: int, dtype: str) -> Op:
    """Returns the weighted sum of the `top_k` expert outputs of every token."""
    rows = num_tokens * top_k
    return Op(
        kind="combine_experts",
        flops=2.0 * rows * hidden_size,
        hbm_bytes=(rows + num_tokens) * hidden_size * DTYPE_BYTES[dtype],
        dtype=dtype,
        unit="vector",
    )
