"""What a model in plain PyTorch launches beyond fused kernels: more launches, more passes through HBM.

Counted is what a layer of Hugging Face's `modeling_llama.py` (or `modeling_opt.py`) does on top of the fused
launches in `layers`, which stand for the same work.
"""

from __future__ import annotations

from ..units import DTYPE_BYTES
from .model import ModelSpec
from .ops import Launches, Op
from .parallel import RankShapes

# Bytes per element beyond the fused kernel's, and launches beyond its one, in two-byte activations.
# RMSNorm after a residual: the addition (6 B), cast to fp32 (6), square (8), mean (4), add and rsqrt (of one
# value per row), product (8), cast back (6), weight (4): 42 B in 9 launches for 8 B in one.
# Source: transformers, LlamaRMSNorm.forward and LlamaDecoderLayer.forward.
RMS_NORM_BYTES, RMS_NORM_KERNELS = 34.0, 8
# LayerNorm is one kernel of PyTorch's; the residual before it is added in a pass of its own, 6 + 4 B for 8 B.
LAYER_NORM_BYTES, LAYER_NORM_KERNELS = 2.0, 1
# Rotary embedding of Q and K: product with cos (4 B), rotate_half as negation of one half (2) and
# concatenation (4), product with sin (4), sum (6): 20 B for 4 B. 5 launches for each of both, and cos and sin
# gathered by position: 12 for one.
# Source: transformers, apply_rotary_pos_emb and rotate_half.
ROPE_BYTES, ROPE_KERNELS = 16.0, 11
# SiLU (4 B) and product (6): 10 B in two launches for 6 B in one.
SILU_MUL_BYTES, SILU_MUL_KERNELS = 4.0, 1
# Heads are brought together by a copy. Source: transformers, LlamaAttention.forward (transpose, reshape).
MERGE_BYTES, MERGE_KERNELS = 4.0, 1
# Q, K and V are three products for one, gate and up two for one.
QKV_KERNELS, GATE_UP_KERNELS = 2, 1

_WIDTH = 2.0  # the bytes above are those of two-byte activations


def unfused_launches(model: ModelSpec, shapes: RankShapes, num_tokens: int, dtype: str) -> list[Launches]:
    """Returns the additional launches of all layers for `num_tokens` tokens."""
    layers, heads = model.num_layers, (shapes.num_q_heads + shapes.num_kv_heads) * model.head_dim
    norm = (RMS_NORM_BYTES, RMS_NORM_KERNELS) if model.is_gated else (LAYER_NORM_BYTES, LAYER_NORM_KERNELS)
    num_norms = (1 if model.has_parallel_attention else 2) * layers
    merged = shapes.num_q_heads * model.head_dim
    parts = [
        (num_norms, model.hidden_size, *norm),
        (layers, merged, MERGE_BYTES, MERGE_KERNELS + QKV_KERNELS),
    ]
    if not model.num_position_embeddings:
        parts.append((layers, heads, ROPE_BYTES, ROPE_KERNELS))
    if model.is_gated:
        kernels = SILU_MUL_KERNELS + GATE_UP_KERNELS
        parts.append((model.num_dense_layers, shapes.intermediate_size, SILU_MUL_BYTES, kernels))
    scale = num_tokens * DTYPE_BYTES[dtype] / _WIDTH
    return [
        Launches(
            count, (Op("unfused", 0.0, scale * width * size, dtype, unit="vector", num_kernels=kernels),)
        )
        for count, width, size, kernels in parts
        if count
    ]
