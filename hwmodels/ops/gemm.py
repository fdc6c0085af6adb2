"""Matrix products: FLOPs, bytes at every level of the memory, and the tiles that a library may choose."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from ...units import DTYPE_BYTES
from .op import Op, Sizes

# Rows of the output that one warpgroup multiplies with an operand read from shared memory.
# Source: PTX ISA, wgmma.mma_async has m64nNk16 shapes only.
WARPGROUP_ROWS = 64

# CTAs that read the same weight panel from L2 once.
# Source: CUTLASS 3.x default Hopper GEMM, cluster shape 2x1x1 with TMA multicast.
# SIMPLIFIED: GPUs without multicast get it too; effect: none where their L2 does not bind (A100: 61 % of it).
CLUSTER_CTAS = 2

# Vector work to widen one quantised weight and to multiply it by its scale: an instruction each for two
# packed weights, of which a counted multiply-add is one for one.
# Source: estimated from Marlin (arXiv 2408.11743), section 3.4: lop3 and hfma2 on pairs of int4.
DEQUANTISE_FLOPS = 2.0


class Tile(NamedTuple):
    """The piece of the output that one CTA computes: `m` tokens by `n` output features."""

    m: int
    n: int


# Source: tile shapes of the CUTLASS profiler's Hopper and Ampere GEMMs; 16 tokens as Triton's smallest `dot`.
GEMM_TILES = (Tile(16, 128), Tile(64, 128), Tile(128, 128), Tile(128, 256))
SPLITS_K = (1, 2, 4, 8)
_SMALL_M = 256  # tokens beyond which only the large tiles are worth trying
DEFAULT_TILE = Tile(128, 128)


def gemm(
    m: float,
    n: int,
    k: int,
    dtype: str,
    *,
    weight_dtype: str | None = None,
    weight_scale_bytes: float = 0.0,
    out_dtype: str | None = None,
    tile: Tile = DEFAULT_TILE,
    split_k: int = 1,
    kind: str = "gemm",
) -> Op:
    """Returns the product of activations (m, k) of `dtype` with weights (n, k), giving (m, n).

    weight_dtype, out_dtype: `dtype` if None; narrower weights are widened by every CTA that loads them, with
    `weight_scale_bytes` of scales beside each. split_k: CTAs that share one output tile along k and add up
    their fp32 partial results through L2.
    Source: FLOPs 2mnk. SRAM: each warpgroup of 64 rows reads its own rows and the whole weight panel.
    """
    in_bytes = DTYPE_BYTES[dtype]
    weight_bytes = DTYPE_BYTES[weight_dtype or dtype] + weight_scale_bytes
    widened = ceil(m / tile.m) * n * k if weight_dtype not in (None, dtype) else 0.0
    num_tiles = ceil(m / tile.m) * ceil(n / tile.n)
    partials = 2 * 4 * split_k * m * n if split_k > 1 else 0.0
    warpgroups = ceil(tile.m / WARPGROUP_ROWS)
    rows = min(tile.m, WARPGROUP_ROWS)
    is_narrow = weight_dtype not in (None, dtype)
    return Op(
        kind="gemm_weight_only" if is_narrow and kind == "gemm" else kind,
        flops=2.0 * m * n * k,
        issued_flops=2.0 * num_tiles * tile.m * tile.n * k,
        num_tiles=num_tiles * split_k,
        vector_flops=DEQUANTISE_FLOPS * widened,
        hbm_bytes=m * k * in_bytes + n * k * weight_bytes + m * n * DTYPE_BYTES[out_dtype or dtype],
        l2_bytes=num_tiles * k * (tile.m * in_bytes + tile.n * weight_bytes / CLUSTER_CTAS) + partials,
        sram_bytes=num_tiles * k * warpgroups * (rows + tile.n) * in_bytes,
        dtype=dtype,
        sizes=Sizes(ceil(m), n, k),
        weight_dtype=weight_dtype if is_narrow else None,
    )


def gemm_candidates(
    m: int,
    n: int,
    k: int,
    dtype: str,
    *,
    weight_dtype: str | None = None,
    weight_scale_bytes: float = 0.0,
    out_dtype: str | None = None,
    kind: str = "gemm",
) -> tuple[Op, ...]:
    """Returns the product once per tile and split that a library would try; it runs the fastest.

    Small tiles and high splits drop out as m grows, never the other way round, so the fastest candidate
    never gets cheaper with more rows.
    """
    tiles = GEMM_TILES if m <= _SMALL_M else GEMM_TILES[2:]
    splits = SPLITS_K if m <= _SMALL_M else SPLITS_K[:2]
    return tuple(
        gemm(
            m, n, k, dtype,
            weight_dtype=weight_dtype, weight_scale_bytes=weight_scale_bytes, out_dtype=out_dtype,
            tile=tile, split_k=split_k, kind=kind,
        )
        for tile in tiles
        for split_k in splits
    )  # fmt: skip
