"""Multi-head latent attention: expanded heads for prefill, absorbed ones for decoding.

Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1 and appendix C; DeepSeek-V3 (arXiv 2412.19437).
"""

from __future__ import annotations

from ...units import DTYPE_BYTES
from .attention import AttentionShape


def mla_expanded(
    num_heads: int, *, qk_nope_head_dim: int, qk_rope_head_dim: int, v_head_dim: int, dtype: str
) -> AttentionShape:
    """Returns the heads of prefill: K and V are expanded to full heads, one KV head per query head.

    DeepSeek-V3: 2 * 128 * (192 + 128) = 81,920 FLOPs per pair.
    """
    qk_head_dim = qk_nope_head_dim + qk_rope_head_dim
    kv_bytes = num_heads * (qk_head_dim + v_head_dim) * DTYPE_BYTES[dtype]
    return AttentionShape(num_heads, num_heads, qk_head_dim, v_head_dim, dtype, kv_bytes)


def mla_absorbed(
    num_heads: int,
    *,
    kv_lora_rank: int,
    qk_rope_head_dim: int,
    dtype: str,
    kv_bytes_per_token: float,
    widen_flops_per_token: float = 0.0,
) -> AttentionShape:
    """Returns the heads of decoding: all queries attend to one latent head, which is K and V at once.

    kv_bytes_per_token, widen_flops_per_token: of one layer; the latent's layout has dtypes of its own
    (`fp8_ds_mla`).
    DeepSeek-V3: 2 * 128 * (576 + 512) = 278,528 FLOPs per pair, 576 elements per cached token.
    """
    latent = kv_lora_rank + qk_rope_head_dim
    return AttentionShape(
        num_heads, 1, latent, kv_lora_rank, dtype, kv_bytes_per_token, widen_flops_per_token
    )
