"""The rows of the requests: views of the recorder's columns, and the times derived from them.

Nothing is copied until a derived column is asked for, so a million requests cost what one column costs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..workload.content import format_runs
from ..workload.demand import Demand
from ..world.recorder import Recorder, Status
from .meta import Slo

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class RequestRows:
    """Columns of equal length, one row per request in the order of the workload.

    Instants `*_at` are seconds since the start and nan for what has not happened. `output_tokens` were
    generated: fewer than requested where the context limit cut the answer, 0 for a request that did not
    finish. `reason` is an index into the reasons of the run, -1 for a request that was not rejected.
    """

    request_id: Ints
    session_id: Ints
    turn: Ints
    arrived_at: Floats
    scheduled_at: Floats
    first_token_at: Floats
    first_output_at: Floats
    finished_at: Floats
    prompt_tokens: Ints
    image_tokens: Ints
    cached_tokens: Ints
    reasoning_tokens: Ints
    priority: Ints
    content: NDArray[np.object_]
    requested_output_tokens: Ints
    output_tokens: Ints
    replica: Ints
    num_preemptions: Ints
    recomputed_tokens: Ints
    status: Ints
    reason: Ints

    def __len__(self) -> int:
        return len(self.arrived_at)

    def slices(self, num_rows: int) -> Iterator[RequestRows]:
        """Yields the rows `num_rows` at a time; at least one, possibly empty, slice."""
        for start in range(0, max(len(self), 1), num_rows):
            part = slice(start, start + num_rows)
            yield RequestRows(*(getattr(self, column.name)[part] for column in fields(self)))

    def with_status(self, status: Status) -> Flags:
        """Returns which rows ended, or stood, as `status`."""
        result: Flags = self.status == status
        return result

    @property
    def queue_s(self) -> Floats:
        """Arrival until first scheduled [s]."""
        return self.scheduled_at - self.arrived_at

    @property
    def ttft_s(self) -> Floats:
        """Time to first token [s]."""
        return self.first_token_at - self.arrived_at

    @property
    def ttfo_s(self) -> Floats:
        """Time to first output: the first token that is not reasoning [s]."""
        return self.first_output_at - self.arrived_at

    @property
    def e2el_s(self) -> Floats:
        """End-to-end latency: arrival until the last token [s]."""
        return self.finished_at - self.arrived_at

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first [s]; nan with one token, which has none after it."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        result: Floats = (self.finished_at - self.first_token_at) / gaps
        return result

    def meets(self, slo: Slo) -> Flags:
        """Returns which rows finished within every limit.

        A one-token answer has a TPOT of 0 here, as in `vllm bench serve --goodput`.
        """
        metrics = {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2el": self.e2el_s}
        metrics["tpot"] = np.where(self.output_tokens > 1, metrics["tpot"], 0.0)
        good = self.with_status(Status.FINISHED)
        for metric, limit_s in slo.limits_s.items():
            good = good & (metrics[metric] <= limit_s)
        return good


def request_rows(recorder: Recorder, demand: Demand) -> tuple[RequestRows, tuple[str, ...]]:
    """Returns the rows of a run and the names of its reasons for rejection."""
    reasons = tuple(sorted(set(recorder.reasons.values())))
    first_token_at = _view(recorder.first_token_at, np.float64)
    rows = RequestRows(
        request_id=np.arange(len(demand)),
        session_id=_demanded(demand.session_id, len(demand), default=-1),
        turn=_demanded(demand.turn, len(demand)),
        arrived_at=_view(recorder.arrived_at, np.float64),
        scheduled_at=_view(recorder.scheduled_at, np.float64),
        first_token_at=first_token_at,
        first_output_at=_first_output_at(first_token_at, recorder, demand),
        finished_at=_view(recorder.finished_at, np.float64),
        prompt_tokens=demand.prompt_tokens,
        image_tokens=_demanded(demand.image_tokens, len(demand)),
        cached_tokens=_view(recorder.cached_tokens, np.int32),
        reasoning_tokens=_demanded(demand.reasoning_tokens, len(demand)),
        priority=_demanded(demand.priority, len(demand)),
        content=_content_cells(demand),
        requested_output_tokens=demand.output_tokens,
        output_tokens=_view(recorder.output_tokens, np.int64),
        replica=_view(recorder.replica, np.int32),
        num_preemptions=_view(recorder.num_preemptions, np.int32),
        recomputed_tokens=_view(recorder.recomputed_tokens, np.int32),
        status=_view(recorder.status, np.int8),
        reason=_reason_codes(recorder, reasons),
    )
    return rows, reasons


def _view(column: array[float] | array[int], dtype: type[Scalar]) -> NDArray[Scalar]:
    return np.frombuffer(column, dtype=dtype)


def _demanded(column: Ints | None, num_rows: int, default: int = 0) -> Ints:
    # A constant column is one number, broadcast: it takes no memory until it is written.
    return np.broadcast_to(np.int64(default), num_rows) if column is None else column


def _content_cells(demand: Demand) -> NDArray[np.object_]:
    """Returns what each prompt holds as a table cell, so that a replay shares the same prefixes."""
    if demand.contents is None:
        return np.broadcast_to(np.array("", dtype=object), len(demand))
    return np.array([format_runs(runs) for runs in demand.contents], dtype=object)


def _first_output_at(first_token_at: Floats, recorder: Recorder, demand: Demand) -> Floats:
    if demand.reasoning_tokens is None:
        return first_token_at
    recorded = _view(recorder.first_output_at, np.float64)
    return np.where(demand.reasoning_tokens > 0, recorded, first_token_at)


def _reason_codes(recorder: Recorder, reasons: tuple[str, ...]) -> Ints:
    if not reasons:
        return np.broadcast_to(np.int32(-1), recorder.num_requests)
    codes = np.full(recorder.num_requests, -1, dtype=np.int32)
    for row, reason in recorder.reasons.items():
        codes[row] = reasons.index(reason)
    return codes
