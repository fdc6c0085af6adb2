"""An engine's own record of its steps, as read from a CSV file: composition, queues and instants."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path
from typing import NamedTuple

from ...errors import TraceError
from ...hwmodels.step import Chunk
from ...units import US

COLUMNS = (
    "schedule_start_us",
    "output_done_us",
    "num_decodes",
    "sum_decode_context_tokens",
    "prefill_chunks",
)


class RecordedStep(NamedTuple):
    """One step as the engine recorded it.

    scheduled_at, ended_at [s]: when it was decided and when its output was processed. duration_s: from its
    start, or the end of the step before it. is_busy: it was decided while the one before ran.
    num_waiting, num_preempted: requests left waiting, and preempted, by its decision; None if not recorded.
    """

    scheduled_at: float
    ended_at: float
    duration_s: float
    is_busy: bool
    num_decodes: int
    sum_context: int
    chunks: tuple[Chunk, ...]
    num_waiting: int | None = None
    num_preempted: int | None = None

    @property
    def kind(self) -> str:
        """decode, prefill or mixed."""
        if not self.chunks:
            return "decode"
        return "mixed" if self.num_decodes else "prefill"

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return self.num_decodes + sum(chunk.query_len for chunk in self.chunks)


def read_steps(path: Path) -> list[RecordedStep]:
    """Returns the steps that held anything, in order.

    Raises: TraceError for an unreadable file, a missing column or a malformed row, with its line.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            return _read(csv.DictReader(file), path)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(path, None, f"cannot be read: {error}") from None


def num_preemptions(steps: list[RecordedStep]) -> int | None:
    """Returns how many times a request was preempted, None if that was not recorded."""
    counts = [step.num_preempted for step in steps]
    return None if None in counts else sum(count for count in counts if count)


def _read(rows: csv.DictReader[str], path: Path) -> list[RecordedStep]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise TraceError(path, 1, f"has no column {missing[0]!r}")
    steps: list[RecordedStep] = []
    last_ended_at = -math.inf
    for line, row in enumerate(rows, 2):
        try:
            step = _step(row, last_ended_at)
        except (TypeError, ValueError) as error:
            raise TraceError(path, line, f"is malformed: {error}") from error
        if step.num_decodes or step.chunks:
            steps.append(step)
            last_ended_at = step.ended_at
    return steps


def _step(row: dict[str, str], last_ended_at: float) -> RecordedStep:
    scheduled_at, ended_at = float(row["schedule_start_us"]) * US, float(row["output_done_us"]) * US
    chunks = []
    for text in filter(None, row["prefill_chunks"].split(";")):
        tokens, context = (int(part) for part in text.split(":"))
        chunks.append(Chunk(tokens, context - tokens))  # contexts include the step's own tokens
    return RecordedStep(
        scheduled_at=scheduled_at,
        ended_at=ended_at,
        duration_s=ended_at - max(scheduled_at, last_ended_at),
        is_busy=scheduled_at < last_ended_at,
        num_decodes=int(row["num_decodes"]),
        sum_context=int(row["sum_decode_context_tokens"]),
        chunks=tuple(chunks),
        num_waiting=_optional(row, "num_waiting"),
        num_preempted=_optional(row, "num_preempted"),
    )


def _optional(row: dict[str, str], name: str) -> int | None:
    text = row.get(name)
    return int(text) if text else None
