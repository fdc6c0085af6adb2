"""One replica in time once more: the literal scheduler, a list of events, and no leaps.

As vLLM's engine core does it: while fewer steps are in flight than the pipeline holds, decide one more; else
wait for the oldest, process its output, and decide again. What arrives in between waits for that decision.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import nan

from policy.reference import ReferenceScheduler, ReferenceStep
from toys import ToyStepModel

from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape
from simllm.sim.request import Request
from simllm.sim.workload.demand import Demand

ARRIVAL, STEP_END = 0, 1  # at equal times arrivals come first


@dataclass
class Fate:
    """What became of a request; `token_at` holds the ends of the steps that gave its tokens [s]."""

    arrived_at: float = nan
    scheduled_at: float = nan
    token_at: list[float] = field(default_factory=list)


class LiteralEngine:
    """Plays a demand on one replica; every request must fit."""

    def __init__(
        self,
        demand: Demand,
        scheduler: ReferenceScheduler,
        model: ToyStepModel,
        frontend_s: tuple[float, float],
    ) -> None:
        self.fates = [Fate() for _ in range(len(demand))]
        self.steps: list[tuple[float, float, int]] = []  # start, duration, tokens
        self._scheduler = scheduler
        self._model = model
        self._depth = 2 if scheduler.spec.async_scheduling else 1
        self._in_s, self._out_s = frontend_s
        self._requests = demand.requests()
        self._num_clients = demand.num_clients
        self._events: list[tuple[float, int, int, Request | None]] = []
        self._num_events = 0
        self._flights: deque[tuple[ReferenceStep, float]] = deque()

    def play(self) -> None:
        """Plays to the end."""
        if self._num_clients is None:
            for request in self._requests:
                self._send(request, request.arrived_at)
        else:
            for _ in range(self._num_clients):
                self._send_next(0.0)
        while self._events:
            now, _, _, request = heappop(self._events)
            if request is not None:
                self._scheduler.add(request)
                is_last_of_instant = not self._events or self._events[0][:2] != (now, ARRIVAL)
                if not self._flights and is_last_of_instant:
                    self._decide(now)
            else:
                self._process(self._flights.popleft())
                self._decide(now)

    def _send(self, request: Request, at: float) -> None:
        self.fates[request.index].arrived_at = at
        self._push(at + self._in_s, ARRIVAL, request)

    def _send_next(self, free_at: float) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._send(request, max(free_at, request.arrived_at))

    def _push(self, at: float, kind: int, request: Request | None) -> None:
        self._num_events += 1
        heappush(self._events, (at, kind, self._num_events, request))

    def _decide(self, now: float) -> None:
        while len(self._flights) < self._depth:
            step = self._scheduler.schedule()
            if not step.scheduled:
                return
            for sequence in step.admitted:
                if not sequence.num_preemptions:
                    self.fates[sequence.request.index].scheduled_at = now
            started_at = max(now, self._flights[-1][1]) if self._flights else now
            duration_s = self._model.predict(shape_of(step)).duration_s
            self.steps.append((started_at, duration_s, sum(num for _, num, _ in step.scheduled)))
            self._flights.append((step, started_at + duration_s))
            self._push(started_at + duration_s, STEP_END, None)

    def _process(self, flight: tuple[ReferenceStep, float]) -> None:
        step, end_at = flight
        for sequence in step.sampling:
            self.fates[sequence.request.index].token_at.append(end_at)
        for _ in self._scheduler.process_output(step):
            if self._num_clients is not None:
                self._send_next(end_at + self._out_s)


def shape_of(step: ReferenceStep) -> StepShape:
    """Returns the counts that price a step; single tokens are priced as decodes."""
    ones = [context + 1 for _, num_new, context in step.scheduled if num_new == 1]
    chunks = tuple(Chunk(num_new, context) for _, num_new, context in step.scheduled if num_new > 1)
    decodes = (DecodeGroup(1, len(ones), sum(ones), max(ones)),) if ones else ()
    return StepShape(chunks=chunks, decodes=decodes)
