"""The cluster: all replicas behind one router."""

from __future__ import annotations

from collections.abc import Sequence

from ..policy.router import Router
from ..request import Request
from .engine import Engine


class Cluster:
    """Sends each request to the replica that the router picks."""

    def __init__(self, engines: Sequence[Engine], router: Router) -> None:
        self.engines = engines
        self._router = router

    def submit(self, request: Request) -> None:
        """Routes a request and hands it to its replica now."""
        engines = self.engines
        picked = self._router.pick(request, engines) if len(engines) > 1 else 0
        engines[picked].submit(request)
