"""Readers of vision towers: Qwen2.5-VL, Qwen3-VL, CLIP (LLaVA) and InternViT (InternVL).

Each counts its small tensors (norms, biases, position and class embeddings) exactly as the checkpoint
holds them; matrices follow from VisionSpec's shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .config_fields import ConfigFields
from .model import VisionSpec

VisionReader = Callable[[ConfigFields, int], VisionSpec]
"""Takes the whole config and the width of the language model."""


def _read_qwen2_5_vision(config: ConfigFields, text_hidden: int) -> VisionSpec:
    """Qwen2.5-VL: gated MLP, RMS norms, biases everywhere, windows in most layers.

    Source: Qwen2.5-VL technical report, arXiv 2502.13923, table 1; Hugging Face modeling_qwen2_5_vl
    """
    vision = config.child("vision_config")
    hidden, width = vision.integer("hidden_size"), vision.integer("intermediate_size")
    num_layers, merge = vision.integer("depth"), vision.integer("spatial_merge_size")
    out_hidden = vision.integer("out_hidden_size", default=text_hidden)
    merged = merge**2 * hidden
    norms, biases = 2 * hidden, (3 * hidden + hidden) + (2 * width + hidden)
    return VisionSpec(
        num_layers=num_layers,
        hidden_size=hidden,
        num_heads=vision.integer("num_heads"),
        intermediate_size=width,
        patch_size=vision.integer("patch_size"),
        is_gated=True,
        merge=merge,
        out_hidden_size=out_hidden,
        temporal_patch_size=vision.integer("temporal_patch_size"),
        window_size=vision.integer("window_size"),
        full_attention_layers=vision.integers("fullatt_block_indexes"),
        merger_hidden_size=merged,
        num_small_params=num_layers * (norms + biases) + hidden + merged + out_hidden,
    )


def _read_qwen3_vision(config: ConfigFields, text_hidden: int) -> VisionSpec:
    """Qwen3-VL: plain MLP, LayerNorm, a position table, and mergers that feed early language layers.

    Source: Hugging Face modeling_qwen3_vl
    """
    vision = config.child("vision_config")
    hidden, width = vision.integer("hidden_size"), vision.integer("intermediate_size")
    num_layers, merge = vision.integer("depth"), vision.integer("spatial_merge_size")
    out_hidden = vision.integer("out_hidden_size", default=text_hidden)
    num_deepstack = len(vision.integers("deepstack_visual_indexes"))
    merged = merge**2 * hidden
    norms, biases = 2 * 2 * hidden, (3 * hidden + hidden) + (width + hidden)
    # The last merger norms single patches, those of DeepStack norm merged ones.
    merger_norms = 2 * hidden + num_deepstack * 2 * merged
    merger_biases = (1 + num_deepstack) * (merged + out_hidden)
    tables = hidden * (1 + vision.integer("num_position_embeddings"))  # patch bias and positions
    return VisionSpec(
        num_layers=num_layers,
        hidden_size=hidden,
        num_heads=vision.integer("num_heads"),
        intermediate_size=width,
        patch_size=vision.integer("patch_size"),
        is_gated=False,
        merge=merge,
        out_hidden_size=out_hidden,
        temporal_patch_size=vision.integer("temporal_patch_size"),
        merger_hidden_size=merged,
        num_mergers=1 + num_deepstack,
        num_small_params=num_layers * (norms + biases) + merger_norms + merger_biases + tables,
    )


def _read_clip_vision(config: ConfigFields, text_hidden: int) -> VisionSpec:
    """LLaVA-1.5: CLIP ViT with a class token, one image token per patch, a projector of two matrices.

    Source: LLaVA-1.5, arXiv 2310.03744; Hugging Face modeling_clip and modeling_llava
    """
    # SIMPLIFIED: LLaVA takes the features of the layer before the last, all layers count here; effect: the
    # encoder's time is 4 % too long (24 layers instead of 23).
    vision = config.child("vision_config")
    hidden, width = vision.integer("hidden_size"), vision.integer("intermediate_size")
    num_layers, patch_size = vision.integer("num_hidden_layers"), vision.integer("patch_size")
    norms, biases = 2 * 2 * hidden, (3 * hidden + hidden) + (width + hidden)
    tables = hidden * (1 + _num_positions(vision, patch_size))  # class token and positions
    outer_norms = 2 * 2 * hidden
    projector_biases = 2 * text_hidden
    return VisionSpec(
        num_layers=num_layers,
        hidden_size=hidden,
        num_heads=vision.integer("num_attention_heads"),
        intermediate_size=width,
        patch_size=patch_size,
        is_gated=False,
        merge=1,
        out_hidden_size=text_hidden,
        merger_hidden_size=text_hidden,
        num_small_params=num_layers * (norms + biases) + tables + outer_norms + projector_biases,
    )


def _read_intern_vision(config: ConfigFields, text_hidden: int) -> VisionSpec:
    """InternVL: InternViT with a class token and layer scales, pixel shuffle, a projector of two matrices.

    Source: InternVL2.5, arXiv 2412.05271; OpenGVLab modeling_intern_vit; Hugging Face modeling_internvl
    """
    vision = config.child("vision_config")
    hidden, width = vision.integer("hidden_size"), vision.integer("intermediate_size")
    num_layers, patch_size = vision.integer("num_hidden_layers"), vision.integer("patch_size")
    merge = round(1 / config.number("downsample_ratio", default=0.5))
    norm_weights = 1 if vision.values.get("norm_type") == "rms_norm" else 2
    has_qkv_bias = vision.flag("qkv_bias", "attention_bias", default=True)
    has_qk_norm = vision.flag("qk_normalization", "use_qk_norm", default=False)
    norms = 2 * norm_weights * hidden + (2 * hidden if has_qk_norm else 0)
    biases = (3 * hidden if has_qkv_bias else 0) + hidden + width + hidden
    layer_scales = 2 * hidden
    tables = hidden * (2 + _num_positions(vision, patch_size))  # patch bias, class token, positions
    projector = 2 * merge**2 * hidden + 2 * text_hidden
    return VisionSpec(
        num_layers=num_layers,
        hidden_size=hidden,
        num_heads=vision.integer("num_attention_heads"),
        intermediate_size=width,
        patch_size=patch_size,
        is_gated=False,
        merge=merge,
        out_hidden_size=text_hidden,
        merger_hidden_size=text_hidden,
        num_small_params=num_layers * (norms + biases + layer_scales) + tables + projector,
    )


def _num_positions(vision: ConfigFields, patch_size: int) -> int:
    """Returns the rows of a position table: one per patch and one for the class token."""
    return (vision.integer("image_size") // patch_size) ** 2 + 1


VISION_READERS: Mapping[str, VisionReader] = {
    "Qwen2_5_VLForConditionalGeneration": _read_qwen2_5_vision,
    "Qwen3VLForConditionalGeneration": _read_qwen3_vision,
    "Qwen3VLMoeForConditionalGeneration": _read_qwen3_vision,
    "LlavaForConditionalGeneration": _read_clip_vision,
    "InternVLChatModel": _read_intern_vision,
    "InternVLForConditionalGeneration": _read_intern_vision,
}
