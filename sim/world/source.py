"""Plays the demand in: every request at its instant, or when what it waits for has ended.

In an open loop a request comes at its instant; in a closed one when a client is free again; one with parents
when all their answers have arrived and its delay has passed, but never before its instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simpy.events import Event

from ...errors import InvariantError
from ..request import Request
from ..workload.demand import Demand
from .clock import ARRIVAL, Alarm, Clock
from .dependents import Dependents
from .front_end import FrontEnd
from .recorder import Recorder, Status

Submit = Callable[[Request], None]

PARENT_FAILED = "waits for an answer that never came"


class Source:
    """Submits requests when they have come through the engine's front end."""

    def __init__(self, clock: Clock, demand: Demand, *, recorder: Recorder, front_end: FrontEnd) -> None:
        self._clock = clock
        self._demand = demand
        self._requests: Iterator[Request] = demand.requests()
        self._recorder = recorder
        self._front_end = front_end
        self._submit: Submit = _nowhere
        self._is_closed_loop = demand.num_clients is not None
        self._num_open = demand.num_clients or 1
        self._dependents = None if demand.parents is None else Dependents(demand)
        self._next: Request | None = None
        self._arrival = Alarm(clock, self._arrive, ARRIVAL)

    def start(self, submit: Submit) -> None:
        """Sets off the first arrivals, to `submit`: one in an open loop, one per client in a closed one."""
        self._submit = submit
        if self._dependents is not None:
            waits = self._dependents.waits
            self._requests = (request for request in self._requests if not waits(request.index))
            self._arrival = Alarm(self._clock, self._send_open, ARRIVAL)
            self._next = next(self._requests, None)
            if self._next is not None:
                self._arrival.set(self._next.arrived_at)
            return
        if not self._is_closed_loop:
            self._next = next(self._requests, None)
            if self._next is not None:
                self._arrival.set(self._queued_at(self._next, self._next.arrived_at))
            return
        for _ in range(self._num_open):
            self._send_next(0.0)

    def request_ended(self, index: int, ended_at: float) -> None:
        """Hears that the answer of request `index` reached its client at `ended_at` [s].

        The client of a closed loop sends the next request then, and those that waited for it are sent.
        """
        if self._is_closed_loop:
            self._send_next(ended_at + self._front_end.times.turnaround_s)
        elif self._dependents is not None:
            if self._recorder.status[index] in (Status.REJECTED, Status.FAILED):
                self._reject_all(self._dependents, index, ended_at)
            else:
                self._set_free(self._dependents, index, ended_at)

    def _arrive(self, _: Event) -> None:
        request = self._next
        assert request is not None, "an arrival is only set for a request"
        self._next = following = next(self._requests, None)
        if following is not None:
            self._arrival.set(self._queued_at(following, following.arrived_at))
        self._recorder.arrived_at[request.index] = request.arrived_at
        self._submit(request)

    def _send_next(self, free_at: float) -> None:
        request = next(self._requests, None)
        if request is None:
            return
        sent_at = max(free_at, request.arrived_at)
        self._recorder.arrived_at[request.index] = sent_at
        arrival = Alarm(self._clock, lambda _: self._submit(request), ARRIVAL)
        arrival.set(self._queued_at(request, sent_at))

    def _queued_at(self, request: Request, sent_at: float) -> float:
        front_end = self._front_end
        return front_end.take(sent_at, request.prompt_tokens) if front_end.takes_time else sent_at

    # -- requests that wait for others: sent at instants that nobody knows before ----------------------------

    def _send_open(self, _: Event) -> None:
        request = self._next
        assert request is not None, "an arrival is only set for a request"
        self._next = following = next(self._requests, None)
        if following is not None:
            self._arrival.set(following.arrived_at)
        self._send(request)

    def _send(self, request: Request) -> None:
        """Sends a request now: the front end takes requests in the order of sending."""
        now = self._clock.now
        self._recorder.arrived_at[request.index] = now
        queued_at = self._queued_at(request, now)
        if queued_at <= now:
            self._submit(request)
        else:
            Alarm(self._clock, lambda _: self._submit(request), ARRIVAL).set(queued_at)

    def _send_at(self, sent_at: float, request: Request) -> None:
        Alarm(self._clock, lambda _: self._send(request), ARRIVAL).set(sent_at)

    def _set_free(self, dependents: Dependents, index: int, answered_at: float) -> None:
        for row, sent_at in dependents.set_free(index, answered_at):
            request = self._demand.request(row)
            self._send_at(max(sent_at, request.arrived_at), request)

    def _reject_all(self, dependents: Dependents, index: int, now: float) -> None:
        """Gives up whatever waits for an answer that never comes."""
        recorder = self._recorder
        waiting = dependents.of(index).copy()
        while waiting:
            row = waiting.pop()
            if recorder.status[row] != Status.REJECTED:
                recorder.arrived_at[row] = now
                recorder.refused(self._demand.request(row), PARENT_FAILED)
                recorder.num_unsent += 1
                waiting += dependents.of(row)


def _nowhere(request: Request) -> None:
    raise InvariantError(f"request {request.index} was sent before the source was started")
