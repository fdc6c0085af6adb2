"""The `faults:` part of a scenario: what breaks and when, and what becomes of the requests it hits.

Faults come by a schedule, or at random with a mean time between failures (MTBF) of each replica.
Source of MTBF's order of size: Grattafiori et al., "The Llama 3 Herd of Models", 2024, section 3.3.4: 419
unexpected interruptions of 16,384 GPUs in 54 days, one per GPU in 50,700 hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ..spec import Spec

AtS = Annotated[float, Field(ge=0, description="When it happens.")]
RestartS = Annotated[
    float | None,
    Field(
        ge=0,
        description="Until a new process serves in its place, model loaded; null: never, unless the pool's "
        "autoscaler starts another.",
    ),
]


class CrashAt(Spec):
    """One replica's process ends: its requests and all its KV are lost."""

    kind: Literal["crash"] = "crash"
    at_s: AtS
    replica: int = Field(ge=0, description="Its place in the pools, in their order.")
    restart_s: RestartS = 60.0


class NodeLossAt(Spec):
    """All replicas of a node crash at once."""

    kind: Literal["node_loss"] = "node_loss"
    at_s: AtS
    node: int = Field(ge=0)
    restart_s: RestartS = 600.0


class SlowAt(Spec):
    """A GPU runs slow for a while, and with it its replica: heat, a power cap, a failing link."""

    kind: Literal["slow"] = "slow"
    at_s: AtS
    replica: int = Field(ge=0, description="Its place in the pools, in their order.")
    factor: float = Field(2.0, ge=1, description="Steps take this many times as long.")
    duration_s: float = Field(60.0, gt=0)


class RandomCrashes(Spec):
    """Crashes of each replica at exponential intervals."""

    mtbf_s: float = Field(gt=0, description="Mean time of serving until a replica crashes.")
    restart_s: float = Field(60.0, ge=0, description="Until a new process serves in its place.")


class RandomSlowness(Spec):
    """Slow GPUs at exponential intervals."""

    mtbf_s: float = Field(gt=0, description="Mean time until a replica becomes slow.")
    factor: float = Field(2.0, ge=1, description="Steps take this many times as long.")
    duration_s: float = Field(60.0, gt=0)


class RetrySpec(Spec):
    """What becomes of a request whose replica crashed: it is sent again, from its beginning, or it fails."""

    max_attempts: int = Field(3, ge=1, description="Times that a request is sent in all; 1: never again.")
    backoff_s: float = Field(0.1, ge=0, description="From the crash until it is sent again.")
    backoff_factor: float = Field(2.0, ge=1, description="Each further time takes this many times as long.")
    timeout_s: float | None = Field(
        None, gt=0, description="Not sent again this long after its arrival: its client has gone."
    )


ScheduledFault = Annotated[CrashAt | NodeLossAt | SlowAt, Field(discriminator="kind")]


class FaultSpec(Spec):
    """Faults by schedule, at random, or both."""

    schedule: tuple[ScheduledFault, ...] = ()
    crashes: RandomCrashes | None = None
    slowness: RandomSlowness | None = None
    replicas_per_node: int = Field(1, ge=1, description="Replicas side by side on a node, for node_loss.")
    retry: RetrySpec = RetrySpec()

    @property
    def may_slow(self) -> bool:
        """Whether a GPU may become slow."""
        return self.slowness is not None or any(isinstance(fault, SlowAt) for fault in self.schedule)

    def place_beyond(self, num_places: int) -> str | None:
        """Returns what in the schedule is none of `num_places`, in words; None if all are."""
        for fault in self.schedule:
            if isinstance(fault, NodeLossAt):
                if fault.node * self.replicas_per_node >= num_places:
                    return f"node {fault.node}"
            elif fault.replica >= num_places:
                return f"replica {fault.replica}"
        return None


class Fault(NamedTuple):
    """At `at` [s] the replicas at `places` crash for `lasts_s`, or become `factor` times as slow for it.

    lasts_s: None for ever. factor: None for a crash.
    """

    at: float
    places: tuple[int, ...]
    lasts_s: float | None
    factor: float | None = None


def faults_of(spec: FaultSpec, num_places: int, rngs: Sequence[np.random.Generator]) -> Iterator[Fault]:
    """Yields the faults in order of time, without end if there are random ones.

    rngs: two streams of random numbers for each of `num_places`, of its crashes and of its slowness.
    """
    plans = [iter(sorted(_scheduled(spec, num_places), key=lambda fault: fault.at))]
    for place in range(num_places):
        if spec.crashes is not None:
            crashes = spec.crashes
            plans.append(_random(place, crashes.mtbf_s, crashes.restart_s, None, rngs[2 * place]))
        if spec.slowness is not None:
            slow = spec.slowness
            plans.append(_random(place, slow.mtbf_s, slow.duration_s, slow.factor, rngs[2 * place + 1]))
    return merge(*plans, key=lambda fault: fault.at)


def _scheduled(spec: FaultSpec, num_places: int) -> Iterator[Fault]:
    for fault in spec.schedule:
        match fault:
            case CrashAt():
                yield Fault(fault.at_s, (fault.replica,), fault.restart_s)
            case NodeLossAt():
                first = fault.node * spec.replicas_per_node
                places = tuple(range(first, min(first + spec.replicas_per_node, num_places)))
                yield Fault(fault.at_s, places, fault.restart_s)
            case SlowAt():
                yield Fault(fault.at_s, (fault.replica,), fault.duration_s, fault.factor)


def _random(
    place: int, mtbf_s: float, lasts_s: float, factor: float | None, rng: np.random.Generator
) -> Iterator[Fault]:
    at = 0.0
    while True:
        at += float(rng.exponential(mtbf_s))
        yield Fault(at, (place,), lasts_s, factor)
        at += lasts_s
