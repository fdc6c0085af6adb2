"""A weighted score of cached prefix, KV use and queue, as NVIDIA Dynamo's and llm-d's schedulers use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...request import Request
from ...spec import Spec
from .base import ClusterView


class WeightedSpec(Spec):
    """The replica with the highest prefix_weight x cached share - kv_weight x KV use - queue_weight x queue.

    The queue is the replica's share of all outstanding requests, times the number of replicas.
    """

    kind: Literal["weighted"] = "weighted"
    prefix_weight: float = Field(1.0, ge=0)
    kv_weight: float = Field(1.0, ge=0)
    queue_weight: float = Field(1.0, ge=0)


class WeightedRouter:
    """The best score; of equals the first."""

    def __init__(self, spec: WeightedSpec) -> None:
        self._spec = spec

    def pick(self, request: Request, view: ClusterView) -> int:
        """Returns the replica with the best score."""
        spec, counts = self._spec, view.num_outstanding
        mean = max(sum(counts) / len(view.serving), 1.0)

        def score(replica: int) -> float:
            cached = (
                view.cached_tokens(replica, request) / request.prompt_tokens if spec.prefix_weight else 0.0
            )
            used = view.kv_use(replica) if spec.kv_weight else 0.0
            queue = counts[replica] / mean
            return spec.prefix_weight * cached - spec.kv_weight * used - spec.queue_weight * queue

        return max(view.serving, key=score)
