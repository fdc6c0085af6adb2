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
    """A SimPy environment that runs alarms. ticket: number of the event that happens now."""

    ticket = -1

    @property
    def num_set(self) -> int:
        """Instants at which something is set to happen, those that were overtaken included."""
        return len(self._queue)

    def step(self) -> None:
        """Lets the next event happen; as SimPy's, but an event may happen again."""
        self._now, _, self.ticket, event = heappop(self._queue)
        (ring,) = event.callbacks
        ring(event)

    def run_to_end(self) -> None:
        """Lets everything happen that was set; as `run`, without its checks for failed events.

        Nothing here fails by an event: what goes wrong raises from its callback.
        """
        queue = self._queue
        while queue:
            self._now, _, self.ticket, event = heappop(queue)
            (ring,) = event.callbacks
            ring(event)


class Alarm(Event):
    """Calls ``ring(alarm)`` at every instant that it is set to.

    Set anew, it still rings at the instants before; its `ticket`, that of the last setting, then differs
    from the clock's.
    """

    ticket = -1

    def __init__(self, clock: Clock, ring: Callable[[Event], None], priority: EventPriority) -> None:
        super().__init__(clock)
        self._ok, self._value = True, None
        self.callbacks = [ring]
        self._priority = priority
        self._queue, self._tickets = clock._queue, clock._eid

    def set(self, at: float) -> None:
        """Sets it to `at` [s], not before now.

        `Environment.schedule` takes a delay and adds it to now, which need not give the instant that was
        meant; two alarms for one instant could then ring in the wrong order.
        """
        self.ticket = ticket = next(self._tickets)
        heappush(self._queue, (at, self._priority, ticket, self))
