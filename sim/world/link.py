"""Links that flows share: max-min fair bandwidth over paths, one event per change.

A flow crosses all links of its path at one rate. Rates are those of progressive filling: all flows grow
alike until a link is full (or a flow's own cap is reached), whose flows then stop growing. Flows with the
same path and cap always have the same rate, so they are one group and a change costs O(groups that share a
link with it, directly or through others), however many flows there are.

Source: Bertsekas and Gallager, Data Networks (2nd ed.), section 6.5.2, max-min flow control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from simpy.events import Event

from .clock import ARRIVAL, Alarm, Clock

OnEnd = Callable[[], None]


class Link:
    """One direction of a wire, bus or disk. num_bytes: carried so far. busy_s: time with a flow on it [s]."""

    def __init__(self, name: str, bytes_per_s: float) -> None:
        self.name = name
        self.bytes_per_s = bytes_per_s
        self.num_bytes = 0.0
        self.busy_s = 0.0
        self.groups: dict[FlowGroup, None] = {}
        self.busy_since = 0.0


class FlowGroup:
    """Flows of one path and cap, each of which has got `served_bytes` since the group was made.

    ends: a heap of (served_bytes at which a flow is done, number of the flow, what to call then); next_end:
    the one that an alarm was set for.
    """

    def __init__(self, path: tuple[Link, ...], cap: float) -> None:
        self.path = path
        self.cap = cap
        self.rate = 0.0
        self.served_bytes = 0.0
        self.served_at = 0.0
        self.ends: list[tuple[float, int, OnEnd]] = []
        self.next_end: tuple[float, int, OnEnd] | None = None
        self.version = 0

    def serve_until(self, now: float) -> None:
        """Gives each flow what it has got by `now` [s]."""
        moved = self.rate * (now - self.served_at)
        self.served_bytes += moved
        self.served_at = now
        for link in self.path:
            link.num_bytes += moved * len(self.ends)


class Links:
    """All flows of a run. Links belong to no one: a path is any sequence of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: dict[tuple[tuple[Link, ...], float], FlowGroup] = {}
        self._numbers = count()
        # (instant, number, group or None, its version): the next flow of a group is done, or a call is due.
        self._due: list[tuple[float, int, FlowGroup | None, int]] = []
        self._calls: dict[int, OnEnd] = {}
        # As with arrivals: what is decided at that instant sees that the flow has ended.
        self._alarm = Alarm(clock, self._ring, ARRIVAL)
        self._alarm_at = inf

    @property
    def now(self) -> float:
        """The instant that it is [s]."""
        return self._clock.now

    def start(
        self,
        path: Sequence[Link],
        num_bytes: float,
        on_end: OnEnd,
        *,
        latency_s: float = 0.0,
        cap: float = inf,
    ) -> None:
        """Lets `num_bytes` flow from now on, at `cap` [B/s] at most; calls `on_end` when all have arrived.

        latency_s: from the last byte's start to its arrival [s]; the links are free meanwhile.
        """
        arrived = on_end if not latency_s else self._later(latency_s, on_end)
        if num_bytes <= 0 or not path:
            self.call_at(self._clock.now, arrived)
            return
        key = (tuple(path), cap)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = FlowGroup(*key)
            group.served_at = self._clock.now
            for link in group.path:
                if not link.groups:
                    link.busy_since = self._clock.now
                link.groups[group] = None
        touched = _sharing(group)
        self._serve(touched)
        heappush(group.ends, (group.served_bytes + num_bytes, next(self._numbers), arrived))
        self._share(touched)

    def call_at(self, at: float, call: OnEnd) -> None:
        """Calls `call` at an instant [s], not before now."""
        number = next(self._numbers)
        self._calls[number] = call
        heappush(self._due, (at, number, None, 0))
        self._set_alarm()

    def settle(self) -> None:
        """Brings the links' sums up to now, to be read at the end of a run."""
        now = self._clock.now
        for group in self._groups.values():
            group.serve_until(now)
            for link in group.path:
                link.busy_s += now - link.busy_since
                link.busy_since = now

    def _later(self, delay_s: float, on_end: OnEnd) -> OnEnd:
        return lambda: self.call_at(self._clock.now + delay_s, on_end)

    def _ring(self, event: Event) -> None:
        """Ends all that is due now."""
        due, now = self._due, self._clock.now
        if now >= self._alarm_at:
            self._alarm_at = inf
        ended: list[OnEnd] = []
        while due and due[0][0] <= now:
            _, number, group, version = heappop(due)
            if group is None:
                ended.append(self._calls.pop(number))
            elif group.version == version:
                ended += self._end_flows(group)
        self._set_alarm()
        for on_end in ended:
            on_end()

    def _end_flows(self, group: FlowGroup) -> list[OnEnd]:
        """Takes the flows that are done off the links, the first one whatever rounding says."""
        touched = _sharing(group)
        self._serve(touched)
        done_bytes, _, first = heappop(group.ends)
        group.served_bytes = max(group.served_bytes, done_bytes)
        ended = [first]
        while group.ends and group.ends[0][0] <= group.served_bytes:
            ended.append(heappop(group.ends)[2])
        if not group.ends:
            self._remove(group)
            touched.remove(group)
        self._share(touched)
        return ended

    def _remove(self, group: FlowGroup) -> None:
        group.version += 1
        del self._groups[group.path, group.cap]
        for link in group.path:
            del link.groups[group]
            if not link.groups:
                link.busy_s += self._clock.now - link.busy_since

    def _serve(self, groups: Iterable[FlowGroup]) -> None:
        now = self._clock.now
        for group in groups:
            group.serve_until(now)

    def _share(self, groups: Sequence[FlowGroup]) -> None:
        """Gives the groups, which share no link with any other, their rates, and notes their next ends."""
        rates = fair_rates([(group.path, group.cap, len(group.ends)) for group in groups])
        now = self._clock.now
        for group, rate in zip(groups, rates, strict=True):
            first = group.ends[0]
            if rate == group.rate and first is group.next_end:
                continue  # it ends when it was to end before
            group.rate, group.next_end = rate, first
            group.version += 1
            end_at = now + max(0.0, first[0] - group.served_bytes) / rate
            heappush(self._due, (end_at, next(self._numbers), group, group.version))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._due and self._due[0][0] < self._alarm_at:
            self._alarm_at = self._due[0][0]
            self._alarm.set(self._alarm_at)


def _sharing(group: FlowGroup) -> list[FlowGroup]:
    """Returns the group and all that share a link with it, directly or through others."""
    if all(len(link.groups) == 1 for link in group.path):
        return [group]
    found: dict[FlowGroup, None] = {group: None}
    frontier = [group]
    while frontier:
        for link in frontier.pop().path:
            for other in link.groups:
                if other not in found:
                    found[other] = None
                    frontier.append(other)
    return list(found)


def fair_rates(groups: Sequence[tuple[tuple[Link, ...], float, int]]) -> list[float]:
    """Returns the max-min fair rate of a flow of each group [B/s], by progressive filling.

    groups: path, cap and number of flows of each.
    """
    if len(groups) == 1:
        ((path, cap, size),) = groups
        return [min(cap, min(link.bytes_per_s for link in path) / size)]
    rates = [0.0] * len(groups)
    growing = set(range(len(groups)))
    room = {link: link.bytes_per_s for path, _, _ in groups for link in path}
    while growing:
        num_flows = dict.fromkeys(room, 0)
        for index in growing:
            path, _, size = groups[index]
            for link in path:
                num_flows[link] += size
        # What each link would give its growing flows now; the tightest one, or a cap below it, is settled.
        shares = {link: room[link] / size for link, size in num_flows.items() if size}
        tightest = min(shares.values())
        settled = [index for index in growing if groups[index][1] <= tightest]
        if not settled:
            settled = [index for index in growing if any(shares[x] <= tightest for x in groups[index][0])]
        for index in settled:
            path, cap, size = groups[index]
            rates[index] = min(cap, tightest)
            for link in path:
                room[link] = max(0.0, room[link] - rates[index] * size)
        growing.difference_update(settled)
    return rates
