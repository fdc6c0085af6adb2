"""The only place with FLOP and byte formulas, for the predictor and the kernel profiler alike.

Every function is pure: sizes in, an `Op` (or a plain count) out. Seconds belong to `roofline`.
"""

from .attention import (
    AttentionShape,
    attention_pairs,
    decode_attention,
    flash1_attention,
    issued_pairs,
    naive_attention,
    prefill_attention,
)
from .gemm import Tile, gemm, gemm_candidates
from .mla import mla_absorbed, mla_expanded
from .moe import (
    align_experts,
    combine_experts,
    expected_distinct_experts,
    grouped_gemm,
    grouped_gemm_candidates,
    needs_alignment,
    route,
)
from .op import Launches, Op, Sizes
from .vector import (
    activation,
    elementwise,
    embedding,
    kv_write,
    layer_norm,
    quantize,
    quantize_max,
    quantize_scaled,
    rms_norm,
    rope,
    sampling,
    silu_mul,
)
from .vision import patch_embed, vision_attention, vision_pairs

__all__ = [
    "AttentionShape",
    "Launches",
    "Op",
    "Sizes",
    "Tile",
    "activation",
    "align_experts",
    "attention_pairs",
    "combine_experts",
    "decode_attention",
    "elementwise",
    "embedding",
    "expected_distinct_experts",
    "flash1_attention",
    "gemm",
    "gemm_candidates",
    "grouped_gemm",
    "grouped_gemm_candidates",
    "issued_pairs",
    "kv_write",
    "layer_norm",
    "mla_absorbed",
    "mla_expanded",
    "naive_attention",
    "needs_alignment",
    "patch_embed",
    "prefill_attention",
    "quantize",
    "quantize_max",
    "quantize_scaled",
    "rms_norm",
    "rope",
    "route",
    "sampling",
    "silu_mul",
    "vision_attention",
    "vision_pairs",
]
