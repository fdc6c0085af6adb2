"""Lets the faults of a plan happen, one after the other, as long as requests are being served."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simpy.events import Event

from ..policy.fault_plan import Fault
from .clock import ARRIVAL, Alarm, Clock
from .fleet import Fleet


class FaultInjector:
    """Plays `faults`, in order of time, at the places of `fleet`, until `is_over()`."""

    def __init__(
        self, clock: Clock, fleet: Fleet, faults: Iterator[Fault], is_over: Callable[[], bool]
    ) -> None:
        self._fleet = fleet
        self._faults = faults
        self._is_over = is_over
        self._next: Fault | None = None
        self._alarm = Alarm(clock, self._strike, ARRIVAL)

    def start(self) -> None:
        """Sets off the first fault."""
        self._set_next()

    @property
    def is_set(self) -> bool:
        """Whether a fault is to come."""
        return self._next is not None

    def _strike(self, _: Event) -> None:
        fault, self._next = self._next, None
        if self._is_over():
            return
        assert fault is not None, "the alarm is only set for a fault"
        for number in fault.places:
            place = self._fleet.places[number]
            if fault.factor is None:
                self._fleet.crash(place, fault.lasts_s)
            elif fault.lasts_s is not None:
                self._fleet.slow(place, fault.factor, fault.lasts_s)
        self._set_next()

    def _set_next(self) -> None:
        self._next = next(self._faults, None)
        if self._next is not None:
            self._alarm.set(self._next.at)
