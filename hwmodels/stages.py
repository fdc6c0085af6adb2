"""A model cut into pipeline stages: which layers each one computes, and what else lies with them.

The token table (and a vision tower) belong to the first stage, the last norm and the lm_head to the last.
Source: vLLM, models/llama.py: `get_pp_group().is_first_rank`, `is_last_rank`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..errors import SimllmError
from .model import ModelSpec
from .parallel import stage_layers


class Ends(NamedTuple):
    """Which ends of a model a stage holds: embeddings, and last norm with lm_head and sampler."""

    has_embedding: bool = True
    has_head: bool = True


WHOLE = Ends()


class Stage(NamedTuple):
    """One stage: its layers as a model of their own, and the ends that it holds."""

    model: ModelSpec
    ends: Ends


def cut_into_stages(model: ModelSpec, num_stages: int) -> tuple[Stage, ...]:
    """Returns the stages of a model, first to last; a model with experts keeps its dense layers in front.

    Raises: SimllmError if there are more stages than layers.
    """
    if num_stages > model.num_layers:
        raise SimllmError(
            f"parallel: {model.name} has {model.num_layers} layers, fewer than pp={num_stages} stages"
        )
    stages = []
    first_layer = 0
    for number, num_layers in enumerate(stage_layers(model.num_layers, num_stages)):
        ends = Ends(number == 0, number == num_stages - 1)
        stages.append(Stage(_layers_of(model, first_layer, num_layers, ends), ends))
        first_layer += num_layers
    return tuple(stages)


def _layers_of(model: ModelSpec, first_layer: int, num_layers: int, ends: Ends) -> ModelSpec:
    moe = model.moe
    if moe is not None:
        num_dense = min(max(moe.first_dense_layers - first_layer, 0), num_layers)
        moe = replace(moe, first_dense_layers=num_dense)
    vision = model.vision if ends.has_embedding else None
    norms = model.num_norm_params * num_layers // model.num_layers
    return replace(model, num_layers=num_layers, moe=moe, vision=vision, num_norm_params=norms)
