"""Moves of KV in time: which links a move crosses, what it has to wait for, and how fast its pieces go.

One mover per replica; the links behind its routes may be shared with other replicas (`wiring.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from ...errors import InvariantError
from ..policy.moves import Move
from .link import Link, Links

OnMoved = Callable[[Move], None]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The way from one tier to another.

    latency_s: until the first byte arrives [s]. piece_s(num_bytes): what one piece takes if nothing else is
    on the way [s], None if pieces cost nothing beyond their bytes. num_lanes: pieces that go side by side,
    one per GPU. is_serial: one move after another, as on one CUDA stream; else all at once.
    """

    links: tuple[Link, ...]
    latency_s: float = 0.0
    piece_s: Callable[[float], float] | None = None
    num_lanes: int = 1
    is_serial: bool = True

    def cap(self, move: Move) -> float:
        """Returns the most that the pieces of a move reach, one after another in each lane [B/s]."""
        if self.piece_s is None or not move.num_pieces:
            return inf
        lane_bytes = move.num_bytes / move.num_pieces / self.num_lanes
        return self.num_lanes * lane_bytes / self.piece_s(lane_bytes)


class TierMover:
    """Times the moves of one replica.

    num_layers: layers that its KV has. num_bytes: moved so far, by (source, target) [B].
    """

    def __init__(self, links: Links, routes: Mapping[tuple[str, str], Route], *, num_layers: int) -> None:
        self.num_layers = num_layers
        self.num_bytes = dict.fromkeys(routes, 0)
        self._links = links
        self._routes = routes
        self._queues: dict[Route, deque[tuple[Move, OnMoved]]] = {
            route: deque() for route in routes.values() if route.is_serial
        }

    def idle_s(self, source: str, target: str, num_bytes: float) -> float:
        """Returns how long a move takes if nothing else is on its way [s]."""
        route = self._routes[source, target]
        return route.latency_s + num_bytes / min(link.bytes_per_s for link in route.links)

    def start(self, move: Move, on_end: OnMoved) -> None:
        """Starts a move now, or when it may; `on_end(move)` is called when it has ended.

        Raises: InvariantError if no route leads from its source to its target.
        """
        if move.start_at:
            self._links.call_at(max(move.start_at, self._links.now), lambda: self._line_up(move, on_end))
        else:
            self._line_up(move, on_end)

    def _line_up(self, move: Move, on_end: OnMoved) -> None:
        if not move.num_bytes:
            self._links.call_at(self._links.now, lambda: on_end(move))
            return
        route = self._routes.get((move.source, move.target))
        if route is None:
            raise InvariantError(f"no route from {move.source} to {move.target}")
        queue = self._queues.get(route)
        if queue is None:
            self._go(route, move, on_end)
            return
        queue.append((move, on_end))
        if len(queue) == 1:
            self._go(route, move, self._next_after(route, queue, on_end))

    def _next_after(self, route: Route, queue: deque[tuple[Move, OnMoved]], on_end: OnMoved) -> OnMoved:
        """Returns `on_end` that lets the next move of the queue go first."""

        def ended(move: Move) -> None:
            queue.popleft()
            if queue:
                waiting, its_end = queue[0]
                self._go(route, waiting, self._next_after(route, queue, its_end))
            on_end(move)

        return ended

    def _go(self, route: Route, move: Move, on_end: OnMoved) -> None:
        def ended() -> None:
            self.num_bytes[move.source, move.target] += move.num_bytes
            on_end(move)

        self._links.start(route.links, move.num_bytes, ended, latency_s=route.latency_s, cap=route.cap(move))
