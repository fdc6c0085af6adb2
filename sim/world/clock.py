"""The clock: SimPy's, with functions called at exact instants, the cheapest thing it can do.

Ties are part of the model: at equal times arrivals come before the ends of steps, so that a step decided
at that instant sees them; events of one kind keep the order in which they were set.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush

from simpy import Environment
from simpy.events import NORMAL, URGENT, Event, EventPriority

ARRIVAL = URGENT
STEP_END = NORMAL


class Alarm(Event):
    """An event that is bound to happen and calls one function."""

    def __init__(self, env: Environment, ring: Callable[[Event], None]) -> None:
        self.env = env
        self.callbacks = [ring]
        self._ok = True
        self._value = None


class Clock(Environment):
    """A SimPy environment that also sets alarms at absolute times.

    `Environment.schedule` takes a delay and adds it to now, which need not give the instant that was
    meant; two alarms for one instant could then ring in the wrong order.
    """

    def set_alarm(self, at: float, ring: Callable[[Event], None], priority: EventPriority) -> Alarm:
        """Calls ``ring(alarm)`` at `at` [s], now at the earliest, and returns the alarm."""
        alarm = Alarm(self, ring)
        heappush(self._queue, (max(at, self._now), priority, next(self._eid), alarm))
        return alarm
