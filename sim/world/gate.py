"""The gate in front of the router: refuses what admission refuses, and lets the rest wait its turn."""

from __future__ import annotations

from collections.abc import Callable

from simpy.events import Event

from ...errors import InvariantError
from ..policy.admission import AdmissionPolicy
from ..policy.router import Refusal
from ..request import Request
from .clock import ARRIVAL, Alarm, Clock

Submit = Callable[[Request], None]


class Gate:
    """Passes requests on as long as not too many are outstanding behind it.

    on_refusal(request, reason) is told of
    every request refused here, on_end(index, ended_at) of every one that has ended, here or behind it [s].
    """

    def __init__(
        self,
        clock: Clock,
        policy: AdmissionPolicy,
        on_refusal: Callable[[Request, str], None],
        on_end: Callable[[int, float], None],
    ) -> None:
        self._clock = clock
        self._policy = policy
        self._submit: Submit = _nowhere
        self._most_outstanding: Callable[[], int | None] = lambda: 0
        self._on_refusal = on_refusal
        self._on_end = on_end
        self._num_outstanding = 0
        self._opening = Alarm(clock, self._open, ARRIVAL)
        self._opens_at = -1.0
        self._timeout = Alarm(clock, self._time_out, ARRIVAL)
        self._times_out_at: float | None = None

    def lead_to(self, submit: Submit, most_outstanding: Callable[[], int | None]) -> None:
        """Sets where requests go on to, and how many may be there as of now; None if any number."""
        self._submit, self._most_outstanding = submit, most_outstanding

    def submit(self, request: Request) -> None:
        """Takes in a request: it goes on, waits, or is refused."""
        now, policy = self._clock.now, self._policy
        refusal = policy.refusal(request, now)
        if refusal is None and not policy.num_queued and self._has_room():
            self._pass_on(request)
            return
        if refusal is None:
            refusal = policy.queue(request, now)
        if refusal is not None:
            self._refuse(request, refusal)
            return
        self.open_soon()
        self._set_timeout()

    def request_ended(self, index: int, ended_at: float) -> None:
        """Hears that request `index`, from behind the gate, has ended; its client knows at `ended_at` [s]."""
        self._num_outstanding -= 1
        self._on_end(index, ended_at)
        self.open_soon()

    def open_soon(self) -> None:
        """Lets in who waits, if there is room, when all that happens now in the engines has happened."""
        if self._policy.num_queued and self._opens_at != self._clock.now and self._has_room():
            self._opens_at = self._clock.now
            self._opening.set(self._clock.now)

    def _open(self, _: Event) -> None:
        self._opens_at = -1.0
        while self._policy.num_queued and self._has_room():
            following = self._policy.next(self._clock.now)
            assert following is not None, "somebody is counted as waiting"
            request, refusal = following
            if refusal is None:
                self._pass_on(request)
            else:
                self._refuse(request, refusal)

    def _time_out(self, _: Event) -> None:
        while (request := self._policy.timed_out(self._clock.now)) is not None:
            self._refuse(request, Refusal("queue_timeout"))
        self._times_out_at = None
        self._set_timeout()

    def _set_timeout(self) -> None:
        due_at = self._policy.times_out_at()
        if due_at is not None and self._times_out_at is None:
            self._times_out_at = due_at
            self._timeout.set(max(due_at, self._clock.now))

    def _has_room(self) -> bool:
        most = self._most_outstanding()
        return most is None or self._num_outstanding < most

    def _pass_on(self, request: Request) -> None:
        self._num_outstanding += 1
        self._submit(request)

    def _refuse(self, request: Request, refusal: Refusal) -> None:
        self._on_refusal(request, refusal)
        self._on_end(request.index, self._clock.now)


def _nowhere(request: Request) -> None:
    raise InvariantError(f"request {request.index} came to a gate that leads nowhere")
