"""Queues of one priority class: who goes first in it."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf
from typing import Protocol

from ...request import Request
from .spec import AdmissionSpec


class Queued:
    """A request that waits at the gate. has_left: it was refused while it waited."""

    __slots__ = ("deadline_at", "has_left", "queued_at", "request", "tenant")

    def __init__(self, request: Request, tenant: int, queued_at: float, deadline_at: float) -> None:
        self.request = request
        self.tenant = tenant
        self.queued_at = queued_at
        self.deadline_at = deadline_at
        self.has_left = False


class Lane(Protocol):
    """Orders what waits; those that have left are still in it and come out like the others."""

    def push(self, queued: Queued) -> None:
        """Adds one at the end."""
        ...

    def pop(self) -> Queued | None:
        """Takes out who goes next; None if nobody waits."""
        ...


class FifoLane:
    """First come, first served."""

    def __init__(self) -> None:
        self._queue: deque[Queued] = deque()

    def push(self, queued: Queued) -> None:
        """Adds one at the end."""
        self._queue.append(queued)

    def pop(self) -> Queued | None:
        """Takes out the oldest."""
        return self._queue.popleft() if self._queue else None


class DeadlineLane:
    """The earliest deadline first; those without one last, as they came.

    Source: C. L. Liu, J. W. Layland, "Scheduling Algorithms for Multiprogramming in a Hard-Real-Time
    Environment", JACM 1973 (deadline driven scheduling).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Queued]] = []
        self._num_pushed = 0

    def push(self, queued: Queued) -> None:
        """Adds one by its deadline."""
        self._num_pushed += 1
        heappush(self._heap, (queued.deadline_at, self._num_pushed, queued))

    def pop(self) -> Queued | None:
        """Takes out the one whose deadline comes first."""
        return heappop(self._heap)[2] if self._heap else None


class FairLane:
    """Deficit round robin over tenants: a turn gives a tenant weight x quantum tokens to spend.

    A request costs its prompt and its answer's limit; what a tenant does not spend it keeps while it waits.
    Source: M. Shreedhar, G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", IEEE/ACM ToN 1996.
    """

    def __init__(self, quanta: tuple[float, ...]) -> None:
        self._quanta = quanta
        self._queues: list[deque[Queued]] = [deque() for _ in quanta]
        self._deficits = [0.0] * len(quanta)
        self._turns: deque[int] = deque()  # tenants that wait; the first one's turn it is
        self._has_quantum = False  # that one was given its quantum in this turn

    def push(self, queued: Queued) -> None:
        """Adds one to its tenant's queue."""
        queue = self._queues[queued.tenant]
        if not queue:
            self._turns.append(queued.tenant)
        queue.append(queued)

    def pop(self) -> Queued | None:
        """Takes out the next one of the tenant whose turn it is, if what it may spend suffices."""
        while self._turns:
            tenant = self._turns[0]
            queue = self._queues[tenant]
            if not self._has_quantum:
                self._deficits[tenant] += self._quanta[tenant]
                self._has_quantum = True
            head = queue[0]
            cost = 0 if head.has_left else head.request.prompt_tokens + head.request.output_tokens
            if cost <= self._deficits[tenant]:
                self._deficits[tenant] -= cost
                queue.popleft()
                if not queue:
                    self._deficits[tenant] = 0.0
                    self._end_turn()
                return head
            self._end_turn()
            self._turns.append(tenant)
        return None

    def _end_turn(self) -> None:
        self._turns.popleft()
        self._has_quantum = False


def make_lane(spec: AdmissionSpec) -> Lane:
    """Returns an empty queue in the order that `spec` asks for."""
    if spec.order == "fair":
        return FairLane(tuple(tenant.weight * spec.quantum_tokens for tenant in spec.tenants))
    return DeadlineLane() if spec.order == "deadline" else FifoLane()


def deadline_at(spec: AdmissionSpec, tenant: int, now: float) -> float:
    """Returns when the first token of a request that comes now is due [s]; infinity without an SLO."""
    slo_ms = spec.tenants[tenant].ttft_slo_ms
    return inf if slo_ms is None else now + slo_ms / 1000
