"""The matrices, heads and experts of the shipped models, as grids of sizes without duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from ..errors import SimllmError
from ..hwmodels.model import ModelSpec, VisionSpec
from ..hwmodels.model_config import load_model, model_names
from ..hwmodels.ops.vision import NUM_COLOURS
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


class VisionHeads(NamedTuple):
    """The heads of a vision tower; each has keys of its own."""

    num_heads: int
    head_dim: int


class Patches(NamedTuple):
    """A patch embedding: `n` channels out of `k` pixels, colours and frames counted, in squares of a side."""

    n: int
    k: int
    kernel_size: int


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


def vocab_sizes() -> tuple[int, ...]:
    """Returns the vocabularies of all models, sorted."""
    return tuple(sorted({load_model(name).vocab_size for name in model_names()}))


def _towers() -> Iterator[VisionSpec]:
    for name in model_names():
        if (vision := load_model(name).vision) is not None:
            yield vision


def vision_heads() -> tuple[VisionHeads, ...]:
    """Returns the heads of all vision towers, sorted."""
    return tuple(
        sorted({VisionHeads(tower.num_heads, tower.hidden_size // tower.num_heads) for tower in _towers()})
    )


def vision_matrices() -> tuple[Matrix, ...]:
    """Returns the weights of the layers and mergers of all vision towers, sorted."""
    return tuple(sorted(set(chain.from_iterable(_tower_matrices(tower) for tower in _towers()))))


def _tower_matrices(tower: VisionSpec) -> Iterator[Matrix]:
    hidden, width = tower.hidden_size, tower.intermediate_size
    yield Matrix(3 * hidden, hidden)
    yield Matrix(hidden, hidden)
    yield Matrix((2 if tower.is_gated else 1) * width, hidden)
    yield Matrix(hidden, width)
    merged, between = tower.merge**2 * hidden, tower.merger_hidden_size
    yield Matrix(between or tower.out_hidden_size, merged)
    if between:
        yield Matrix(tower.out_hidden_size, between)


def patch_shapes() -> tuple[Patches, ...]:
    """Returns the patch embeddings of all vision towers, sorted."""
    return tuple(
        sorted(
            {
                Patches(
                    tower.hidden_size,
                    NUM_COLOURS * tower.temporal_patch_size * tower.patch_size**2,
                    tower.patch_size,
                )
                for tower in _towers()
            }
        )
    )
