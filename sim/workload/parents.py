"""Which requests wait for the answers of others, as columns: conversations, agents, forks and joins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class ParentProblem(NamedTuple):
    """A row that can never be sent, and why."""

    row: int
    what: str


class Parents(Sequence[tuple[int, ...]]):
    """Per request the rows whose answers it waits for, all of them; none for a request on its own.

    rows: the parents, requests one after another. ends: (num_requests,) index just after each one's last.
    """

    __slots__ = ("ends", "rows")

    def __init__(self, rows: Ints, ends: Ints) -> None:
        self.rows = rows
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        start = int(self.ends[row - 1]) if row else 0
        return tuple(self.rows[start : int(self.ends[row])].tolist())

    def counts(self) -> Ints:
        """Returns the number of parents of each request."""
        return np.diff(self.ends, prepend=0)

    def children(self) -> Ints:
        """Returns the request that waits, for each entry of `rows`."""
        return np.repeat(np.arange(len(self)), self.counts())

    def reordered(self, order: Ints) -> Parents:
        """Returns the requests in `order` (old rows); parents are the same requests as before."""
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return pack_parents([rank[list(self[row])].tolist() for row in order.tolist()])

    def problem(self) -> ParentProblem | None:
        """Returns the first request that waits for one that is unknown, or for itself in a circle."""
        children = self.children()
        unknown = np.flatnonzero((self.rows < 0) | (self.rows >= len(self)))
        if len(unknown):
            row, parent = int(children[unknown[0]]), int(self.rows[unknown[0]])
            return ParentProblem(row, f"waits for request {parent}, but there are 0 to {len(self) - 1}")
        if (self.rows < children).all():
            return None
        sorter = TopologicalSorter[int]()
        for child, parent in zip(children.tolist(), self.rows.tolist(), strict=True):
            sorter.add(child, parent)
        try:
            sorter.prepare()
        except CycleError as error:
            circle: list[int] = error.args[1]
            return ParentProblem(min(circle), f"waits for itself: {' <- '.join(map(str, circle))}")
        return None


def pack_parents(rows: Iterable[Iterable[int]]) -> Parents:
    """Returns the parents of all requests as columns."""
    flat: list[int] = []
    ends: list[int] = []
    for parents in rows:
        flat.extend(parents)
        ends.append(len(flat))
    return Parents(np.array(flat, dtype=np.int64), np.array(ends, dtype=np.int64))
