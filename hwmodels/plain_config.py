"""Readers of the families with a plain MLP and LayerNorm: Falcon, BLOOM, OPT, GPT-2 and GPT-3.

`PLAIN_READERS` lists the architectures. LayerNorm has a weight and a bias, so each counts twice its width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .config_fields import ConfigFields, max_model_len
from .model import ModelSpec

_DEFAULT_MAX_LENGTH = 2048  # of Falcon and BLOOM, whose configs may leave it out
# Source: Hugging Face FalconConfig; BLOOM, arXiv 2211.05100, table 3

_OPT_POSITION_OFFSET = 2  # rows of OPT's position table that no token uses
# Source: Hugging Face OPTLearnedPositionalEmbedding


def _read_falcon(fields: ConfigFields, name: str) -> ModelSpec:
    """Falcon: parallel attention; one KV head (7B), or a few in the new decoder architecture (40B, 180B)."""
    hidden = fields.integer("hidden_size")
    num_layers = fields.integer("num_hidden_layers", "n_layer")
    num_heads = fields.integer("num_attention_heads", "n_head")
    is_new = fields.flag("new_decoder_architecture", default=False)
    is_parallel = is_new or fields.flag("parallel_attn", default=True)
    if is_new:
        num_kv_heads = fields.integer("num_kv_heads", "n_head_kv", default=num_heads)
        norms_per_layer = fields.integer("num_ln_in_parallel_attn", default=2)
    else:
        num_kv_heads = 1 if fields.flag("multi_query", default=True) else num_heads
        norms_per_layer = 1 if is_parallel else 2
    has_bias = fields.flag("bias", default=False)
    return ModelSpec(
        name=name,
        architecture=fields.reader,
        num_layers=num_layers,
        hidden_size=hidden,
        num_q_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=hidden // num_heads,
        intermediate_size=fields.integer("ffn_hidden_size", default=4 * hidden),
        vocab_size=fields.integer("vocab_size"),
        max_model_len=max_model_len(fields, default=_DEFAULT_MAX_LENGTH),
        is_gated=False,
        ties_embeddings=fields.flag("tie_word_embeddings", default=True),
        has_parallel_attention=is_parallel,
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        has_mlp_bias=has_bias,
        num_norm_params=2 * hidden * (num_layers * norms_per_layer + 1),
    )


def _plain_spec(
    fields: ConfigFields,
    name: str,
    *,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    intermediate_size: int,
    num_position_embeddings: int,
    num_outer_norms: int,
    has_bias: bool,
) -> ModelSpec:
    """Returns the spec of a GPT-like model: every head has its own KV, every matrix the same bias or none.

    num_outer_norms: norms outside the layers, which hold two each.
    """
    return ModelSpec(
        name=name,
        architecture=fields.reader,
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_q_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden_size // num_heads,
        intermediate_size=intermediate_size,
        vocab_size=fields.integer("vocab_size"),
        max_model_len=max_model_len(fields, default=_DEFAULT_MAX_LENGTH),
        is_gated=False,
        ties_embeddings=fields.flag("tie_word_embeddings", default=True),
        num_position_embeddings=num_position_embeddings,
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
        has_mlp_bias=has_bias,
        num_norm_params=2 * hidden_size * (2 * num_layers + num_outer_norms),
    )


def _read_bloom(fields: ConfigFields, name: str) -> ModelSpec:
    """BLOOM: ALiBi needs no position table; the embeddings have a norm of their own."""
    hidden = fields.integer("hidden_size", "n_embed")
    return _plain_spec(
        fields,
        name,
        hidden_size=hidden,
        num_layers=fields.integer("n_layer", "num_hidden_layers"),
        num_heads=fields.integer("n_head", "num_attention_heads"),
        intermediate_size=4 * hidden,
        num_position_embeddings=0,
        num_outer_norms=2,
        has_bias=True,
    )


def _read_opt(fields: ConfigFields, name: str) -> ModelSpec:
    """OPT: learned positions. OPT-350M, with norms behind and narrow embeddings, is refused."""
    hidden = fields.integer("hidden_size")
    fields.require("do_layer_norm_before", True, default=True)
    fields.require("word_embed_proj_dim", hidden, default=hidden)
    return _plain_spec(
        fields,
        name,
        hidden_size=hidden,
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=fields.integer("num_attention_heads"),
        intermediate_size=fields.integer("ffn_dim"),
        num_position_embeddings=fields.integer("max_position_embeddings") + _OPT_POSITION_OFFSET,
        num_outer_norms=1,
        has_bias=fields.flag("enable_bias", default=True),
    )


def _read_gpt2(fields: ConfigFields, name: str) -> ModelSpec:
    """GPT-2 and, with its own sizes, GPT-3."""
    # SIMPLIFIED: GPT-3's locally banded sparse layers count as dense ones; effect: its attention FLOPs and
    # KV reads at long context are up to twice the real ones. Parameters and KV size are the same.
    hidden = fields.integer("n_embd", "hidden_size")
    return _plain_spec(
        fields,
        name,
        hidden_size=hidden,
        num_layers=fields.integer("n_layer", "num_hidden_layers"),
        num_heads=fields.integer("n_head", "num_attention_heads"),
        intermediate_size=fields.integer("n_inner", default=4 * hidden),
        num_position_embeddings=fields.integer("n_positions", "max_position_embeddings"),
        num_outer_norms=1,
        has_bias=True,
    )


PLAIN_READERS: Mapping[str, Callable[[ConfigFields, str], ModelSpec]] = {
    "FalconForCausalLM": _read_falcon,
    "RWForCausalLM": _read_falcon,
    "BloomForCausalLM": _read_bloom,
    "OPTForCausalLM": _read_opt,
    "GPT2LMHeadModel": _read_gpt2,
}
