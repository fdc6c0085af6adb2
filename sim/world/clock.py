"""The clock: SimPy's, with functions called at exact instants, the cheapest thing it can do.

Ties are part of the model: at equal times arrivals come before the ends of steps, so that a step decided
at that instant sees them; events of one kind keep the order in which they were set.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from simpy import Environment
from simpy.events import NORMAL, URGENT, Event, EventPriority

ARRIVAL = URGENT
STEP_END = NORMAL


class Clock(Environment):
    """A SimPy environment that runs alarms."""

    def run_to_end(self) -> None:
        """Lets everything happen that was set; as `run`, without its checks for failed events.

        Nothing here fails by an event: what goes wrong raises from its callback.
        """
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)
            for callback in event.callbacks:
                callback(event)


class Alarm(Event):
    """Calls ``ring(alarm)`` at `at` [s], now at the earliest.

    `Environment.schedule` takes a delay and adds it to now, which need not give the instant that was
    meant; two alarms for one instant could then ring in the wrong order.
    """

    def __init__(
        self, clock: Clock, at: float, ring: Callable[[Event], None], priority: EventPriority
    ) -> None:
        self.env = clock
        self.callbacks = [ring]
        self._ok = True
        self._value = None
        now = clock._now
        heappush(clock._queue, (at if at > now else now, priority, next(clock._eid), self))
