"""Routers: which replica serves a request, decided from what a front end can know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from ..request import Request
from ..spec import Spec


class ClusterView(Protocol):
    """What a router may see of the replicas, by column: item i is replica i's."""

    @property
    def num_outstanding(self) -> Sequence[int]:
        """Requests sent to each replica and not answered yet."""
        ...


class Router(Protocol):
    """Picks a replica for each request."""

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the number of the replica that serves `request`."""
        ...


class RoundRobinSpec(Spec):
    """Each replica in turn."""

    kind: Literal["round_robin"] = "round_robin"


class RandomSpec(Spec):
    """Any replica, with equal chances."""

    kind: Literal["random"] = "random"


class LeastOutstandingSpec(Spec):
    """The replica with the fewest requests sent and not answered; the first of equals."""

    kind: Literal["least_outstanding"] = "least_outstanding"


RouterSpec = Annotated[RoundRobinSpec | RandomSpec | LeastOutstandingSpec, Field(discriminator="kind")]


class RoundRobinRouter:
    """Each replica in turn."""

    def __init__(self) -> None:
        self._next = 0

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the replica after the one picked last."""
        picked = self._next % len(view.num_outstanding)
        self._next = picked + 1
        return picked


class RandomRouter:
    """Any replica, with equal chances, from its own stream of random numbers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns a replica at random."""
        return int(self._rng.integers(len(view.num_outstanding)))


class LeastOutstandingRouter:
    """The replica with the fewest outstanding requests."""

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the first replica with the fewest outstanding requests."""
        counts = view.num_outstanding
        return counts.index(min(counts))


def make_router(spec: RouterSpec, rng: np.random.Generator) -> Router:
    """Returns the router that `spec` asks for; `rng` is its own stream of random numbers."""
    if isinstance(spec, RoundRobinSpec):
        return RoundRobinRouter()
    if isinstance(spec, RandomSpec):
        return RandomRouter(rng)
    return LeastOutstandingRouter()
