"""Routers that need no more than a count per replica."""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

import numpy as np

from ...request import Request
from ...spec import Spec
from .base import ClusterView, idlest


class RoundRobinSpec(Spec):
    """Each replica in turn."""

    kind: Literal["round_robin"] = "round_robin"


class RandomSpec(Spec):
    """Any replica, with equal chances."""

    kind: Literal["random"] = "random"


class LeastOutstandingSpec(Spec):
    """The replica with the fewest requests sent and not answered; the first of equals."""

    kind: Literal["least_outstanding"] = "least_outstanding"


class PowerOfTwoSpec(Spec):
    """Of two replicas at random, the one with fewer outstanding requests."""

    kind: Literal["power_of_two"] = "power_of_two"


class LeastKvSpec(Spec):
    """The replica whose KV cache is used least; of equals, the one with the fewest outstanding requests."""

    kind: Literal["least_kv"] = "least_kv"


class RoundRobinRouter:
    """Each replica in turn."""

    def __init__(self) -> None:
        self._next = 0

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the replica after the one picked last."""
        serving = view.serving
        place = bisect_left(serving, self._next) % len(serving)
        self._next = serving[place] + 1
        return serving[place]


class RandomRouter:
    """Any replica, with equal chances, from its own stream of random numbers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns a replica at random."""
        return view.serving[int(self._rng.integers(len(view.serving)))]


class LeastOutstandingRouter:
    """The replica with the fewest outstanding requests."""

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the first replica with the fewest outstanding requests."""
        return idlest(view)


class PowerOfTwoRouter:
    """The idler of two replicas at random.

    Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the one with fewer outstanding requests, the first of equals."""
        counts, serving = view.num_outstanding, view.serving
        places = self._rng.choice(len(serving), size=min(2, len(serving)), replace=False)
        first, second = serving[int(places[0])], serving[int(places[-1])]
        return first if counts[first] <= counts[second] else second


class LeastKvRouter:
    """The replica with the most free KV."""

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the replica whose KV is used least."""
        counts = view.num_outstanding
        return min(view.serving, key=lambda replica: (view.kv_use(replica), counts[replica]))
