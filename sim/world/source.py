"""Plays the demand in: every request at its instant, or when a client of a closed loop is free again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simpy.events import Event

from ...errors import InvariantError
from ..request import Request
from ..workload.demand import Demand
from .clock import ARRIVAL, Alarm, Clock
from .front_end import FrontEnd
from .recorder import Recorder

Submit = Callable[[Request], None]


class Source:
    """Submits requests when they have come through the engine's front end."""

    def __init__(self, clock: Clock, demand: Demand, *, recorder: Recorder, front_end: FrontEnd) -> None:
        self._clock = clock
        self._requests: Iterator[Request] = demand.requests()
        self._recorder = recorder
        self._front_end = front_end
        self._submit: Submit = _nowhere
        self._is_closed_loop = demand.num_clients is not None
        self._num_open = demand.num_clients or 1
        self._next: Request | None = None
        self._arrival = Alarm(clock, self._arrive, ARRIVAL)

    def start(self, submit: Submit) -> None:
        """Sets off the first arrivals, to `submit`: one in an open loop, one per client in a closed one."""
        self._submit = submit
        if not self._is_closed_loop:
            self._next = next(self._requests, None)
            if self._next is not None:
                self._arrival.set(self._queued_at(self._next, self._next.arrived_at))
            return
        for _ in range(self._num_open):
            self._send_next(0.0)

    def request_ended(self, ended_at: float) -> None:
        """Hears that an answer reached its client at `ended_at` [s], who sends the next request then."""
        if self._is_closed_loop:
            self._send_next(ended_at + self._front_end.times.turnaround_s)

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


def _nowhere(request: Request) -> None:
    raise InvariantError(f"request {request.index} was sent before the source was started")
