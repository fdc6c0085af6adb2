"""What the vision tower of a multimodal model launches for the images of one step."""

from __future__ import annotations

from . import ops
from .model import VisionSpec
from .ops import Launches


def vision_launches(vision: VisionSpec, num_image_tokens: int, dtype: str) -> list[Launches]:
    """Returns the tower's launches for `num_image_tokens` embeddings: patches, layers, mergers.

    SIMPLIFIED: the tower is not cut by TP; effect: too slow by up to the TP degree.
    Source: shapes from the model's config; Qwen2.5-VL (arXiv 2502.13923) for windows and merger.
    """
    patches = num_image_tokens * vision.merge**2
    embed = ops.patch_embed(
        patches,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        hidden_size=vision.hidden_size,
        dtype=dtype,
    )
    return [
        Launches(1, (embed,)),
        *_layer_gemms(vision, patches, dtype),
        *_attention(vision, patches, dtype),
        *_elementwise(vision, patches, dtype),
        *_mergers(vision, num_image_tokens, dtype),
    ]


def _layer_gemms(vision: VisionSpec, patches: int, dtype: str) -> list[Launches]:
    hidden, width = vision.hidden_size, vision.intermediate_size
    up = (2 if vision.is_gated else 1) * width
    shapes = ((3 * hidden, hidden), (hidden, hidden), (up, hidden), (hidden, width))
    return [Launches(vision.num_layers, ops.gemm_candidates(patches, n, k, dtype)) for n, k in shapes]


def _attention(vision: VisionSpec, patches: int, dtype: str) -> list[Launches]:
    """Returns the layers that see whole images and those that see windows.

    SIMPLIFIED: all images of a step count as one where a layer sees everything; effect: attention of those
    layers too slow by up to the number of images in the step.
    """
    heads = ops.AttentionShape.grouped_query(
        vision.num_heads, vision.num_heads, vision.hidden_size // vision.num_heads, dtype=dtype
    )
    if vision.window_size is None:
        return [Launches(vision.num_layers, (ops.vision_attention(heads, patches),))]
    window = (vision.window_size // vision.patch_size) ** 2
    num_full = len(vision.full_attention_layers)
    return [
        Launches(num_full, (ops.vision_attention(heads, patches),)),
        Launches(vision.num_layers - num_full, (ops.vision_attention(heads, patches, window),)),
    ]


def _elementwise(vision: VisionSpec, patches: int, dtype: str) -> list[Launches]:
    activate = ops.silu_mul if vision.is_gated else ops.activation
    norm = ops.rms_norm if vision.is_gated else ops.layer_norm
    return [
        Launches(2 * vision.num_layers, (norm(patches, vision.hidden_size, dtype),)),
        Launches(vision.num_layers, (activate(patches, vision.intermediate_size, dtype),)),
    ]


def _mergers(vision: VisionSpec, num_image_tokens: int, dtype: str) -> list[Launches]:
    """Returns the projection of merge^2 patches to one embedding, in one matrix or two."""
    merged, between, out = (
        vision.merge**2 * vision.hidden_size,
        vision.merger_hidden_size,
        vision.out_hidden_size,
    )
    shapes = ((between, merged), (out, between)) if between else ((out, merged),)
    return [
        Launches(vision.num_mergers, ops.gemm_candidates(num_image_tokens, n, k, dtype)) for n, k in shapes
    ]
