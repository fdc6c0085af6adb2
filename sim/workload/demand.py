"""Demand: all requests of a run as columns, so that a million of them stay small.

A `Demand` is what every generator and every trace loader returns, what `simllm workload` writes and what
`world/source.py` plays in. Request objects are made one at a time, when they arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, repeat

import numpy as np
from numpy.typing import NDArray

from ...errors import InvariantError
from ..request import ContentRun, Request
from .parents import Parents

FloatColumn = NDArray[np.float64]
IntColumn = NDArray[np.int64]

_CHUNK_ROWS = 4096


@dataclass(slots=True)
class Demand:
    """Columns of equal length, one row per request, in order of arrival.

    arrived_at [s], never decreasing. In a closed loop (`num_clients` set) it is the earliest instant at
    which the row may be sent (0 for all, unless clients start spread out), and row i + num_clients waits
    for an answer.
    parents: the requests whose answers a row waits for; delay_s: from the last of them until it is sent [s],
    not before its arrived_at. None for the whole column when nobody waits.
    contents: per request its `ContentRun`s or None, or None for the whole column when nothing is shared.
    origin: what the rows are, in words, for the summary (a file's name, or the generator).
    """

    arrived_at: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    contents: Sequence[tuple[ContentRun, ...] | None] | None = None
    session_id: IntColumn | None = None
    turn: IntColumn | None = None
    image_tokens: IntColumn | None = None
    reasoning_tokens: IntColumn | None = None
    priority: IntColumn | None = None
    num_samples: IntColumn | None = None
    beam_width: IntColumn | None = None
    tenant: IntColumn | None = None
    parents: Parents | None = None
    delay_s: FloatColumn | None = None
    num_clients: int | None = None
    origin: str = ""
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.arrived_at)

    def requests(self) -> Iterator[Request]:
        """Yields the rows as requests, made one at a time."""
        starts = range(0, len(self), _CHUNK_ROWS)
        # As `Request._make`, which is a Python call a row.
        return map(partial(tuple.__new__, Request), chain.from_iterable(map(self._cells, starts)))

    def _cells(self, start: int) -> Iterator[tuple[object, ...]]:
        # Column slices become Python numbers a few thousand at a time: memory stays flat, and a row costs
        # a fraction of indexing each array.
        part = slice(start, start + _CHUNK_ROWS)
        return zip(
            count(start),
            self.arrived_at[part].tolist(),
            self.prompt_tokens[part].tolist(),
            self.output_tokens[part].tolist(),
            repeat(None) if self.contents is None else self.contents[part],
            _values(self.session_id, part, default=-1),
            _values(self.turn, part, default=0),
            _values(self.image_tokens, part, default=0),
            _values(self.reasoning_tokens, part, default=0),
            _values(self.priority, part, default=0),
            _values(self.num_samples, part, default=1),
            _values(self.beam_width, part, default=0),
            _values(self.tenant, part, default=0),
            strict=False,  # absent columns repeat without end
        )

    def request(self, index: int) -> Request:
        """Returns row `index` as a request."""
        return Request(
            index=index,
            arrived_at=float(self.arrived_at[index]),
            prompt_tokens=int(self.prompt_tokens[index]),
            output_tokens=int(self.output_tokens[index]),
            content=None if self.contents is None else self.contents[index],
            session_id=-1 if self.session_id is None else int(self.session_id[index]),
            turn=0 if self.turn is None else int(self.turn[index]),
            image_tokens=0 if self.image_tokens is None else int(self.image_tokens[index]),
            reasoning_tokens=0 if self.reasoning_tokens is None else int(self.reasoning_tokens[index]),
            priority=0 if self.priority is None else int(self.priority[index]),
            num_samples=1 if self.num_samples is None else int(self.num_samples[index]),
            beam_width=0 if self.beam_width is None else int(self.beam_width[index]),
            tenant=0 if self.tenant is None else int(self.tenant[index]),
        )

    def check(self) -> None:
        """Checks what every generator and loader promises of the columns.

        Raises: InvariantError when columns differ in length, arrivals are negative, not finite or out of
        order, a prompt or an answer has no token, or a request waits for one that
        never ends.
        """
        shown = (self.session_id, self.turn, self.image_tokens, self.reasoning_tokens, self.priority)
        ints = (*shown, self.num_samples, self.beam_width, self.tenant)
        waits = (self.parents, self.delay_s)
        columns = (self.prompt_tokens, self.output_tokens, self.contents, *ints, *waits)
        lengths = {len(self), *(len(column) for column in columns if column is not None)}
        if len(lengths) != 1:
            raise InvariantError(f"columns of one demand differ in length: {sorted(lengths)}")
        if not len(self):
            return
        steps = np.diff(self.arrived_at, prepend=0.0)
        if not (np.isfinite(self.arrived_at).all() and (steps >= 0).all()):
            raise InvariantError(f"arrived_at[{int(np.argmin(steps))}] comes before its predecessor or 0")
        for name, column in (("prompt", self.prompt_tokens), ("output", self.output_tokens)):
            if column.min() < 1:
                raise InvariantError(f"{name}_tokens[{int(column.argmin())}] = {column.min()} is below 1")
        self._check_parents()

    def _check_parents(self) -> None:
        if self.delay_s is not None and not (np.isfinite(self.delay_s).all() and (self.delay_s >= 0).all()):
            raise InvariantError(f"delay_s[{int(np.argmin(self.delay_s))}] is no duration")
        if self.parents is None:
            return
        if self.num_clients is not None:
            raise InvariantError("requests of a closed loop wait for their client, not for parents too")
        problem = self.parents.problem()
        if problem is not None:
            raise InvariantError(f"request {problem.row} {problem.what}")


def _values(column: IntColumn | None, part: slice, *, default: int) -> Iterable[int]:
    return repeat(default) if column is None else column[part].tolist()
