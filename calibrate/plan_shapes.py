"""The matrices, heads and experts of the shipped models, as grids of sizes without duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ..errors import SimllmError
from ..hwmodels.model import ModelSpec
from ..hwmodels.model_config import load_model, model_names
from ..hwmodels.parallel import ParallelSpec, RankShapes, rank_shapes

TENSOR_PARALLEL = (1, 2, 4)


class Matrix(NamedTuple):
    """A weight: `n` output features by `k` inner size."""

    n: int
    k: int


class Heads(NamedTuple):
    """The heads of one attention layer on one rank."""

    num_q_heads: int
    num_kv_heads: int
    head_dim: int


class Experts(NamedTuple):
    """One product over all experts of a layer: weights (n, k) each."""

    n: int
    k: int
    num_experts: int
    top_k: int


def _ranks() -> Iterator[tuple[ModelSpec, RankShapes]]:
    """Yields every shipped model at every degree of tensor parallelism that cuts it."""
    for name in model_names():
        model = load_model(name)
        for tp in TENSOR_PARALLEL:
            try:
                yield model, rank_shapes(model, ParallelSpec(tp=tp))
            except SimllmError:
                continue


def gemm_shapes() -> tuple[Matrix, ...]:
    """Returns the weights of all linear layers and lm_heads, sorted."""
    return tuple(sorted(set(chain.from_iterable(_matrices(*rank) for rank in _ranks()))))


def _matrices(model: ModelSpec, shapes: RankShapes) -> Iterator[Matrix]:
    hidden, head_dim = model.hidden_size, model.head_dim
    yield Matrix(shapes.vocab_size, hidden)
    if (mla := model.mla) is None:
        yield Matrix((shapes.num_q_heads + 2 * shapes.num_kv_heads) * head_dim, hidden)
        yield Matrix(hidden, shapes.num_q_heads * head_dim)
    else:
        yield Matrix(
            shapes.num_q_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim), mla.q_lora_rank or hidden
        )
        yield Matrix(shapes.num_q_heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
        yield Matrix(hidden, shapes.num_q_heads * mla.v_head_dim)
    if model.num_dense_layers:
        yield Matrix((2 if model.is_gated else 1) * shapes.intermediate_size, hidden)
        yield Matrix(hidden, shapes.intermediate_size)


def attention_heads() -> tuple[Heads, ...]:
    """Returns the head counts of all models but those with latent attention, sorted."""
    heads = {
        Heads(shapes.num_q_heads, shapes.num_kv_heads, model.head_dim)
        for model, shapes in _ranks()
        if model.mla is None
    }
    return tuple(sorted(heads))


def expert_shapes() -> tuple[Experts, ...]:
    """Returns both products over the experts of all mixture models, sorted."""
    found = set()
    for model, shapes in _ranks():
        if (moe := model.moe) is not None:
            width, hidden = shapes.expert_intermediate_size, model.hidden_size
            found.add(Experts(2 * width, hidden, moe.num_experts, moe.top_k))
            found.add(Experts(hidden, width, moe.num_experts, moe.top_k))
    return tuple(sorted(found))
