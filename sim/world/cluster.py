"""The cluster: all replicas behind one router."""

from __future__ import annotations

from collections.abc import Callable

from ..policy.router import Router
from ..request import Request
from .engine import Engine


class Cluster:
    """Sends each request to the replica that the router picks, and keeps what routers may see.

    on_end(ended_at) is told of every request that ends, rejected ones included [s].
    """

    def __init__(self, router: Router, on_end: Callable[[float], None]) -> None:
        self._router = router
        self._on_end = on_end
        self.engines: list[Engine] = []
        self.num_outstanding: list[int] = []

    def add(self, engine: Engine) -> None:
        """Adds the replica whose number is the count of those before it."""
        self.engines.append(engine)
        self.num_outstanding.append(0)

    def submit(self, request: Request) -> None:
        """Routes a request and hands it to its replica now."""
        engines = self.engines
        picked = self._router.pick(request, self) if len(engines) > 1 else 0
        self.num_outstanding[picked] += 1
        engines[picked].submit(request)

    def request_ended(self, replica: int, ended_at: float) -> None:
        """Hears that a request of `replica` has ended; its client knows at `ended_at` [s]."""
        self.num_outstanding[replica] -= 1
        self._on_end(ended_at)
