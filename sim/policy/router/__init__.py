"""Routers: which replica serves a request, decided from what a front end can know."""

from __future__ import annotations

from typing import Annotated, assert_never

import numpy as np
from pydantic import Field

from .affinity import SessionAffinityRouter, SessionAffinitySpec
from .base import ClusterView, Refusal, Router
from .conductor import ConductorRouter, ConductorSpec
from .prefix_aware import PrefixAwareRouter, PrefixAwareSpec
from .simple import (
    LeastKvRouter,
    LeastKvSpec,
    LeastOutstandingRouter,
    LeastOutstandingSpec,
    PowerOfTwoRouter,
    PowerOfTwoSpec,
    RandomRouter,
    RandomSpec,
    RoundRobinRouter,
    RoundRobinSpec,
)
from .weighted import WeightedRouter, WeightedSpec

AnyRouterSpec = (
    RoundRobinSpec
    | RandomSpec
    | LeastOutstandingSpec
    | LeastKvSpec
    | PowerOfTwoSpec
    | SessionAffinitySpec
    | PrefixAwareSpec
    | WeightedSpec
    | ConductorSpec
)
RouterSpec = Annotated[AnyRouterSpec, Field(discriminator="kind")]

__all__ = [
    "ClusterView",
    "ConductorSpec",
    "LeastKvSpec",
    "LeastOutstandingRouter",
    "LeastOutstandingSpec",
    "PowerOfTwoSpec",
    "PrefixAwareSpec",
    "RandomSpec",
    "Refusal",
    "RoundRobinSpec",
    "Router",
    "RouterSpec",
    "SessionAffinitySpec",
    "WeightedSpec",
    "make_router",
]


def make_router(spec: AnyRouterSpec, rng: np.random.Generator) -> Router:
    """Returns the router that `spec` asks for; `rng` is its own stream of random numbers."""
    match spec:
        case RoundRobinSpec():
            return RoundRobinRouter()
        case RandomSpec():
            return RandomRouter(rng)
        case LeastOutstandingSpec():
            return LeastOutstandingRouter()
        case LeastKvSpec():
            return LeastKvRouter()
        case PowerOfTwoSpec():
            return PowerOfTwoRouter(rng)
        case SessionAffinitySpec():
            return SessionAffinityRouter(spec)
        case PrefixAwareSpec():
            return PrefixAwareRouter(spec)
        case WeightedSpec():
            return WeightedRouter(spec)
        case ConductorSpec():
            return ConductorRouter(spec)
    assert_never(spec)
