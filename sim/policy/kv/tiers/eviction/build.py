"""Which eviction policy a tier's settings ask for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arc import ArcEviction
from .attention_importance import AttentionImportanceEviction
from .base import Eviction
from .cost_aware import CostAwareEviction
from .fifo import FifoEviction
from .lfu import LfuEviction
from .lru import LruEviction
from .position_aware import PositionAwareEviction
from .random_choice import RandomEviction
from .spec import (
    ArcSpec,
    AttentionImportanceSpec,
    CostAwareSpec,
    EvictionSpec,
    FifoSpec,
    LfuSpec,
    PositionAwareSpec,
    RandomEvictionSpec,
    TtlSpec,
    TurnAwareSpec,
)
from .ttl import TtlEviction
from .turn_aware import TurnAwareEviction


def make_eviction(
    spec: EvictionSpec,
    *,
    capacity_blocks: int,
    rng: np.random.Generator,
    saved_s: Callable[[int, int], float],
) -> Eviction:
    """Returns the policy that `spec` asks for, of a tier of `capacity_blocks`.

    saved_s(context_blocks, num_blocks): time that loading blocks saves over computing them [s].
    """
    if isinstance(spec, LfuSpec):
        return LfuEviction()
    if isinstance(spec, FifoSpec):
        return FifoEviction()
    if isinstance(spec, ArcSpec):
        return ArcEviction(capacity_blocks)
    if isinstance(spec, RandomEvictionSpec):
        return RandomEviction(rng)
    if isinstance(spec, TtlSpec):
        return TtlEviction(spec.ttl_s)
    if isinstance(spec, CostAwareSpec):
        return CostAwareEviction(saved_s)
    if isinstance(spec, PositionAwareSpec):
        return PositionAwareEviction(spec.uses_per_block)
    if isinstance(spec, TurnAwareSpec):
        return TurnAwareEviction(spec.alive_s)
    if isinstance(spec, AttentionImportanceSpec):
        return AttentionImportanceEviction(spec.exponent, spec.scores)
    return LruEviction()
