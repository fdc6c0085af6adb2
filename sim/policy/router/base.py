"""The contract of a router, and what a front end can know of its replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...request import Request


class ClusterView(Protocol):
    """What a router may see of the replicas, which are numbered from 0; all of it is as of now."""

    @property
    def now(self) -> float:
        """The time [s]."""
        ...

    @property
    def num_outstanding(self) -> Sequence[int]:
        """Requests sent to each replica and not answered yet."""
        ...

    @property
    def serving(self) -> Sequence[int]:
        """The replicas that take requests, in rising order; never empty."""
        ...

    def kv_use(self, replica: int) -> float:
        """Returns the share of its KV blocks that requests hold."""
        ...

    def cached_tokens(self, replica: int, request: Request) -> int:
        """Returns the tokens of the prompt that its prefix cache holds."""
        ...

    def prefill_s(self, replica: int, num_tokens: int, context_tokens: int) -> float:
        """Returns the time of `num_tokens` of a prompt behind `context_tokens` computed ones, alone [s]."""
        ...


def idlest(view: ClusterView) -> int:
    """Returns the first serving replica with the fewest outstanding requests."""
    counts, serving = view.num_outstanding, view.serving
    if len(serving) == len(counts):
        return counts.index(min(counts))
    return min(serving, key=counts.__getitem__)


class Refusal(str):
    """Why a request is not sent to any replica."""

    __slots__ = ()


class Router(Protocol):
    """Picks a replica for each request."""

    def pick(self, request: Request, view: ClusterView) -> int | Refusal:
        """Returns the number of the replica that serves `request`, or why none is to."""
        ...
