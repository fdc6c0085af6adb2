"""Requests that wait for the answers of others: who may be sent when an answer has arrived."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..workload.demand import Demand


class Dependents:
    """Counts the answers that each request still waits for.

    delay_s: (num_requests,) from the last of these answers until the request is sent: a user who thinks, or
    a tool that runs.
    """

    def __init__(self, demand: Demand) -> None:
        parents = demand.parents
        assert parents is not None, "there is nobody who waits"
        self._num_missing: list[int] = parents.counts().tolist()
        self._delay_s = [0.0] * len(demand) if demand.delay_s is None else demand.delay_s.tolist()
        by_parent = np.argsort(parents.rows, kind="stable")
        self._children: list[int] = parents.children()[by_parent].tolist()
        starts = np.searchsorted(parents.rows[by_parent], np.arange(len(demand) + 1))
        self._starts: list[int] = starts.tolist()

    def waits(self, row: int) -> bool:
        """Returns whether a request still waits for an answer."""
        return self._num_missing[row] > 0

    def set_free(self, row: int, answered_at: float) -> Iterator[tuple[int, float]]:
        """Yields the requests that waited for this answer last, and when they are sent [s]."""
        missing = self._num_missing
        for child in self.of(row):
            missing[child] -= 1
            if not missing[child]:
                yield child, answered_at + self._delay_s[child]

    def of(self, row: int) -> list[int]:
        """Returns the requests that wait for the answer of one."""
        return self._children[self._starts[row] : self._starts[row + 1]]
