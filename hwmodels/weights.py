"""How many bytes of weights one rank holds, replication and mixed dtypes included."""

from __future__ import annotations

from ..units import DTYPE_BYTES
from .model import ModelSpec
from .parallel import ParallelSpec, RankShapes, rank_shapes


def rank_weight_bytes(
    model: ModelSpec,
    parallel: ParallelSpec,
    *,
    weight_dtype: str,
    activation_dtype: str,
    scale_bytes: float = 0.0,
) -> float:
    """Returns the weights of the fullest rank [B]; parameters and errors as in `stage_weight_bytes`."""
    return max(
        stage_weight_bytes(
            model,
            parallel,
            weight_dtype=weight_dtype,
            activation_dtype=activation_dtype,
            scale_bytes=scale_bytes,
        )
    )


def stage_weight_bytes(
    model: ModelSpec,
    parallel: ParallelSpec,
    *,
    weight_dtype: str,
    activation_dtype: str,
    scale_bytes: float = 0.0,
) -> tuple[float, ...]:
    """Returns the weights of one rank of each pipeline stage [B]: its slices of the stage's layers.

    Only the layers' matrices are quantised; embeddings, lm_head, norms, router and the vision tower stay in
    the activations' dtype, as engines keep them. scale_bytes: beside each quantised weight.
    Raises: SimllmError if the model cannot be cut that way.
    """
    shapes = rank_shapes(model, parallel)
    wide, narrow = DTYPE_BYTES[activation_dtype], DTYPE_BYTES[weight_dtype] + scale_bytes
    first_layer, held = 0, []
    for stage, num_layers in enumerate(shapes.stage_layers):
        layers = range(first_layer, first_layer + num_layers)
        num_dense = sum(layer < model.num_dense_layers for layer in layers)
        quantised = (
            num_layers * _attention_params(model, parallel, shapes)
            + num_dense * model.num_dense_mlp_params / parallel.tp
            + (num_layers - num_dense) * _expert_params(model, parallel)
        )
        routers = (num_layers - num_dense) * model.num_router_params
        norms = model.num_norm_params * num_layers / model.num_layers
        tables = _table_params(model, parallel, stage)
        held.append(quantised * narrow + (routers + norms + tables) * wide)
        first_layer += num_layers
    return tuple(held)


def layer_weight_bytes(
    model: ModelSpec,
    parallel: ParallelSpec,
    *,
    weight_dtype: str,
    activation_dtype: str,
    scale_bytes: float = 0.0,
) -> float:
    """Returns the weights of one layer on one rank, on average [B]; parameters as in `stage_weight_bytes`."""
    whole = rank_weight_bytes(
        model,
        parallel,
        weight_dtype=weight_dtype,
        activation_dtype=activation_dtype,
        scale_bytes=scale_bytes,
    )
    tables = _table_params(model, parallel, 0) * DTYPE_BYTES[activation_dtype]
    return (whole - tables) / model.num_layers


def _attention_params(model: ModelSpec, parallel: ParallelSpec, shapes: RankShapes) -> float:
    """Returns one layer's attention on one rank; KV heads (MLA: the projections down) are replicated."""
    hidden = model.hidden_size
    if model.mla is not None:
        whole = held = hidden * ((model.mla.q_lora_rank or 0) + model.mla.latent_dim)
    else:
        whole = 2 * model.num_kv_heads * model.head_dim * hidden
        held = 2 * shapes.num_kv_heads * model.head_dim * hidden
    return (model.num_attention_params - whole) / parallel.tp + held


def _expert_params(model: ModelSpec, parallel: ParallelSpec) -> float:
    """Returns the experts of one MoE layer on one rank, routed (whole under EP, else sliced) and shared."""
    if model.moe is None:
        return 0.0
    ranks = parallel.ep if parallel.ep > 1 else parallel.tp
    num_held = model.moe.num_experts + parallel.num_redundant_experts
    return num_held * model.num_expert_params / ranks + model.num_shared_expert_params / parallel.tp


def _table_params(model: ModelSpec, parallel: ParallelSpec, stage: int) -> float:
    """Returns embeddings and vision tower on the first stage, the lm_head on the last."""
    is_first, is_last = stage == 0, stage == parallel.pp - 1
    params = 0
    if is_first:
        params += model.num_embedding_params + (0 if model.vision is None else model.vision.num_params)
    if is_last:
        params += model.num_lm_head_params
        if model.ties_embeddings and not is_first:
            params += model.num_embedding_params
    return params / parallel.tp
