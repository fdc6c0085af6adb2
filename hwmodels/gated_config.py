"""Readers of the families with a gated MLP and RMSNorm: Llama, Mistral, Mixtral, Qwen, InternLM2, DeepSeek.

`GATED_READERS` lists the architectures. A reader fills every field of ModelSpec but the vision tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from .config_fields import ConfigFields, max_model_len
from .model import MlaSpec, ModelSpec, MoeSpec


@dataclass(frozen=True, slots=True)
class _GatedFamily:
    """What sets apart the families with a gated MLP and RMS norms that are otherwise Llama's.

    has_qkv_bias: always, whatever the config says. slides_by_default: a `sliding_window` needs no
    `use_sliding_window` beside it. read_moe: reads the experts, None for a dense MLP.
    """

    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    slides_by_default: bool = False
    read_moe: Callable[[ConfigFields], MoeSpec] | None = None


def _read_gated(fields: ConfigFields, name: str, *, family: _GatedFamily) -> ModelSpec:
    hidden, num_layers = fields.integer("hidden_size"), fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    head_dim = fields.integer("head_dim", default=hidden // num_heads)
    has_bias = fields.flag("attention_bias", "bias", default=False)
    # SIMPLIFIED: Qwen's max_window_layers is not read, the window holds in every layer or in none;
    # effect: none on published checkpoints, which all leave the window off.
    slides = fields.flag("use_sliding_window", default=family.slides_by_default)
    norms_per_layer = 2 * hidden + (2 * head_dim if family.has_qk_norm else 0)
    return ModelSpec(
        name=name,
        architecture=fields.reader,
        num_layers=num_layers,
        hidden_size=hidden,
        num_q_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", default=num_heads),
        head_dim=head_dim,
        intermediate_size=fields.integer("intermediate_size"),
        vocab_size=fields.integer("vocab_size"),
        max_model_len=max_model_len(fields),
        is_gated=True,
        ties_embeddings=fields.flag("tie_word_embeddings", default=False),
        moe=None if family.read_moe is None else family.read_moe(fields),
        sliding_window=fields.optional_integer("sliding_window") if slides else None,
        has_qkv_bias=family.has_qkv_bias or has_bias,
        has_output_bias=has_bias,
        has_mlp_bias=fields.flag("mlp_bias", default=False),
        num_norm_params=num_layers * norms_per_layer + hidden,
    )


def _read_mixtral_moe(fields: ConfigFields) -> MoeSpec:
    return MoeSpec(
        num_experts=fields.integer("num_local_experts"),
        top_k=fields.integer("num_experts_per_tok"),
        intermediate_size=fields.integer("intermediate_size"),
    )


def _read_qwen3_moe(fields: ConfigFields) -> MoeSpec:
    fields.require("decoder_sparse_step", 1, default=1)
    dense_layers = fields.integers("mlp_only_layers")
    fields.require("mlp_only_layers", list(range(len(dense_layers))), default=[])
    return MoeSpec(
        num_experts=fields.integer("num_experts", "num_local_experts"),
        top_k=fields.integer("num_experts_per_tok"),
        intermediate_size=fields.integer("moe_intermediate_size"),
        first_dense_layers=len(dense_layers),
    )


def _read_deepseek_moe(fields: ConfigFields) -> MoeSpec:
    fields.require("moe_layer_freq", 1, default=1)
    width = fields.integer("moe_intermediate_size")
    return MoeSpec(
        num_experts=fields.integer("n_routed_experts"),
        top_k=fields.integer("num_experts_per_tok"),
        intermediate_size=width,
        shared_intermediate_size=width * (fields.optional_integer("n_shared_experts") or 0),
        first_dense_layers=fields.integer("first_k_dense_replace", default=0, minimum=0),
        has_router_bias=fields.reader == "DeepseekV3ForCausalLM",
    )


def _read_deepseek(fields: ConfigFields, name: str) -> ModelSpec:
    """DeepSeek-V2 and V3: MLA, leading dense layers, then experts.

    The multi-token-prediction module at the end of V3's checkpoint is not part of the model: it is only
    loaded to draft tokens.
    """
    mla = MlaSpec(
        kv_lora_rank=fields.integer("kv_lora_rank"),
        q_lora_rank=fields.optional_integer("q_lora_rank"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
    )
    hidden, num_layers = fields.integer("hidden_size"), fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    has_bias = fields.flag("attention_bias", default=False)
    return ModelSpec(
        name=name,
        architecture=fields.reader,
        num_layers=num_layers,
        hidden_size=hidden,
        num_q_heads=num_heads,
        num_kv_heads=fields.integer("num_key_value_heads", default=num_heads),
        head_dim=mla.qk_nope_head_dim + mla.qk_rope_head_dim,
        intermediate_size=fields.integer("intermediate_size"),
        vocab_size=fields.integer("vocab_size"),
        max_model_len=max_model_len(fields),
        is_gated=True,
        ties_embeddings=fields.flag("tie_word_embeddings", default=False),
        mla=mla,
        moe=_read_deepseek_moe(fields),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        num_norm_params=num_layers * (2 * hidden + mla.kv_lora_rank + (mla.q_lora_rank or 0)) + hidden,
    )


def _read_qwen1(fields: ConfigFields, name: str) -> ModelSpec:
    """Qwen-1: `intermediate_size` counts the gate and the up matrix together."""
    hidden, num_layers = fields.integer("hidden_size"), fields.integer("num_hidden_layers")
    num_heads = fields.integer("num_attention_heads")
    has_other_bias = not fields.flag("no_bias", default=True)
    return ModelSpec(
        name=name,
        architecture=fields.reader,
        num_layers=num_layers,
        hidden_size=hidden,
        num_q_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=fields.integer("kv_channels", default=hidden // num_heads),
        intermediate_size=fields.integer("intermediate_size") // 2,
        vocab_size=fields.integer("vocab_size"),
        max_model_len=max_model_len(fields),
        is_gated=True,
        ties_embeddings=fields.flag("tie_word_embeddings", default=False),
        has_qkv_bias=True,
        has_output_bias=has_other_bias,
        has_mlp_bias=has_other_bias,
        num_norm_params=num_layers * 2 * hidden + hidden,
    )


GATED_READERS: Mapping[str, Callable[[ConfigFields, str], ModelSpec]] = {
    "LlamaForCausalLM": partial(_read_gated, family=_GatedFamily()),
    "InternLM2ForCausalLM": partial(_read_gated, family=_GatedFamily()),
    "MistralForCausalLM": partial(_read_gated, family=_GatedFamily(slides_by_default=True)),
    "MixtralForCausalLM": partial(
        _read_gated, family=_GatedFamily(slides_by_default=True, read_moe=_read_mixtral_moe)
    ),
    "QWenLMHeadModel": _read_qwen1,
    "Qwen2ForCausalLM": partial(_read_gated, family=_GatedFamily(has_qkv_bias=True)),
    "Qwen3ForCausalLM": partial(_read_gated, family=_GatedFamily(has_qk_norm=True)),
    "Qwen3MoeForCausalLM": partial(
        _read_gated, family=_GatedFamily(has_qk_norm=True, read_moe=_read_qwen3_moe)
    ),
    "DeepseekV2ForCausalLM": _read_deepseek,
    "DeepseekV3ForCausalLM": _read_deepseek,
}
