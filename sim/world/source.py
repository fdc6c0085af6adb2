"""Plays the demand in: every request at its instant, or when a client of a closed loop is free again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simpy.events import Event

from ...errors import InvariantError
from ..request import Request
from ..workload.demand import Demand
from .clock import ARRIVAL, Alarm, Clock
from .recorder import Recorder

Submit = Callable[[Request], None]


class Source:
    """Submits requests `frontend_in_s` [s] after they were sent: the way through the engine's front end."""

    def __init__(self, clock: Clock, demand: Demand, *, recorder: Recorder, frontend_in_s: float) -> None:
        self._clock = clock
        self._requests: Iterator[Request] = demand.requests()
        self._recorder = recorder
        self._frontend_in_s = frontend_in_s
        self._submit: Submit = _nowhere
        self._is_closed_loop = demand.num_clients is not None
        self._num_open = demand.num_clients or 1
        self._next: Request | None = None

    def start(self, submit: Submit) -> None:
        """Sets off the first arrivals, to `submit`: one in an open loop, one per client in a closed one."""
        self._submit = submit
        if not self._is_closed_loop:
            self._next = next(self._requests, None)
            self._wait_for_next()
            return
        for _ in range(self._num_open):
            self._send_next(0.0)

    def request_ended(self, ended_at: float) -> None:
        """Hears that an answer reached its client at `ended_at` [s], who sends the next request then."""
        if self._is_closed_loop:
            self._send_next(ended_at)

    def _wait_for_next(self) -> None:
        if self._next is not None:
            Alarm(self._clock, self._next.arrived_at + self._frontend_in_s, self._arrive, ARRIVAL)

    def _arrive(self, _: Event) -> None:
        request = self._next
        assert request is not None, "an arrival is only set for a request"
        self._next = next(self._requests, None)
        self._wait_for_next()
        self._recorder.arrived_at[request.index] = request.arrived_at
        self._submit(request)

    def _send_next(self, free_at: float) -> None:
        request = next(self._requests, None)
        if request is None:
            return
        sent_at = max(free_at, request.arrived_at)
        self._recorder.arrived_at[request.index] = sent_at
        Alarm(self._clock, sent_at + self._frontend_in_s, lambda _: self._submit(request), ARRIVAL)


def _nowhere(request: Request) -> None:
    raise InvariantError(f"request {request.index} was sent before the source was started")
