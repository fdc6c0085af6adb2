"""The vision tower's own formulas: patches, windows, and which patches see which."""

from __future__ import annotations

from .attention import AttentionShape
from .gemm import gemm
from .op import Op

NUM_COLOURS = 3


def patch_embed(
    num_patches: int, *, patch_size: int, temporal_patch_size: int, hidden_size: int, dtype: str
) -> Op:
    """Returns the convolution of every patch as a product: its stride is its size, so no pixel repeats."""
    pixels = NUM_COLOURS * temporal_patch_size * patch_size**2
    return gemm(num_patches, hidden_size, pixels, dtype, kind="patch_embed")


def vision_pairs(num_patches: int, window_patches: int | None = None) -> int:
    """Returns the (query, key) pairs of bidirectional attention over one image, or inside its windows.

    1,200 patches in windows of 64: 18 full windows and one of 48, 18 * 64^2 + 48^2 = 76,032 pairs.
    """
    if window_patches is None or num_patches <= window_patches:
        return num_patches * num_patches
    windows, rest = divmod(num_patches, window_patches)
    return windows * window_patches**2 + rest**2


def vision_attention(shape: AttentionShape, num_patches: int, window_patches: int | None = None) -> Op:
    """Returns bidirectional FlashAttention over the patches of one image, or inside its windows."""
    pairs = vision_pairs(num_patches, window_patches)
    return Op(
        kind="vision_attention",
        flops=float(pairs * shape.flops_per_pair),
        vector_flops=float(pairs * shape.vector_flops_per_pair),
        hbm_bytes=num_patches * (shape.kv_bytes_per_token + shape.query_bytes_per_token),
        l2_bytes=pairs * shape.l2_bytes_per_pair,
        sram_bytes=pairs * shape.sram_bytes_per_pair,
        dtype=shape.dtype,
    )
