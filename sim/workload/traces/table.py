"""simllm's own requests table, as a run writes it: .parquet or .csv.

Only what was demanded is read: arrived_at, prompt_tokens, requested_output_tokens (or output_tokens, in a
table without it) and, where present, content, session_id, turn, image_tokens, reasoning_tokens, priority,
num_samples, beam_width, tenant.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ....errors import TraceError, nearest_choice
from ...request import ContentRun
from ..content import RunContents, pack_contents, parse_runs
from ..demand import Demand, FloatColumn, IntColumn

CONTENT = "content"
# Optional columns, and the value that stands for nothing.
OPTIONAL = {
    "session_id": -1,
    "turn": 0,
    "image_tokens": 0,
    "reasoning_tokens": 0,
    "priority": 0,
    "num_samples": 1,
    "beam_width": 0,
    "tenant": 0,
}


class RequestsTable:
    """A requests table in memory, limited to the rows that arrived and to `num_requests` of them."""

    def __init__(self, path: Path, num_requests: int | None) -> None:
        self.path = path
        table = _read(path)
        self._table: pa.Table = table
        for name in ("arrived_at", "prompt_tokens", "output_tokens"):
            if name not in table.column_names:
                hint = nearest_choice(name, table.column_names)
                also = f"; did you mean {hint!r}?" if hint else ""
                raise TraceError(path, None, f"has no column {name!r}{also}")
        # A run that was cut off leaves requests that never arrived, without an instant.
        instants = table["arrived_at"].to_pylist()
        self.rows = [row for row, at in enumerate(instants) if not _is_missing(at)][:num_requests]
        self.num_absent = len(instants) - len(self.rows) if num_requests is None else 0
        if not self.rows:
            raise TraceError(path, None, "holds no requests")

    def values(self, name: str) -> list[Any]:
        """Returns a column's values in `rows`."""
        values = self._table[name].to_pylist()
        return [values[row] for row in self.rows]

    def has(self, name: str) -> bool:
        """Returns whether there is such a column."""
        return name in self._table.column_names

    def arrivals(self) -> FloatColumn:
        """Returns arrived_at [s]."""
        instants = self.values("arrived_at")
        for row, at in zip(self.rows, instants, strict=True):
            if not isinstance(at, float | int) or not 0 <= at < math.inf:
                raise self._error(row, f"arrived_at must be a number >= 0 (got {at!r})")
        return np.array(instants, dtype=np.float64)

    def counts(self, name: str) -> IntColumn:
        """Returns a column of whole numbers >= 1."""
        values = self.values(name)
        for row, value in zip(self.rows, values, strict=True):
            if type(value) is not int or value < 1:
                raise self._error(row, f"{name} must be a whole number >= 1 (got {value!r})")
        return np.array(values, dtype=np.int64)

    def optional(self, name: str) -> IntColumn | None:
        """Returns an optional column, None when it is absent or says nothing in any row."""
        if not self.has(name):
            return None
        absent = OPTIONAL[name]
        values = [absent if value is None else value for value in self.values(name)]
        for row, value in zip(self.rows, values, strict=True):
            if type(value) is not int:
                raise self._error(row, f"{name} must be a whole number (got {value!r})")
        column = np.array(values, dtype=np.int64)
        return None if (column == absent).all() else column

    def contents(self, prompt_tokens: IntColumn) -> RunContents | None:
        """Returns the contents, None when the column is absent or empty in every row."""
        if not self.has(CONTENT):
            return None
        prompts = prompt_tokens.tolist()
        runs = [
            self._runs(row, cell, prompt)
            for row, cell, prompt in zip(self.rows, self.values(CONTENT), prompts, strict=True)
        ]
        return pack_contents(runs) if any(runs) else None

    def _runs(self, row: int, cell: object, prompt_tokens: int) -> tuple[ContentRun, ...] | None:
        try:
            runs = parse_runs(str(cell) if cell else None)
        except ValueError:
            raise self._error(row, f"content must be id:tokens;id:tokens (got {cell!r})") from None
        covered = sum(run.num_tokens for run in runs or ())
        if runs is not None and covered != prompt_tokens:
            raise self._error(row, f"content covers {covered} of {prompt_tokens} prompt tokens")
        return runs

    def _error(self, row: int, what: str) -> TraceError:
        # A CSV has one line per row after its header; a parquet file has rows only.
        if self.path.suffix == ".parquet":
            return TraceError(self.path, None, f"row {row}: {what}")
        return TraceError(self.path, row + 2, what)


def read_table(path: Path, num_requests: int | None) -> Demand:
    """Returns the demand of the rows, in the order of the file.

    Raises: TraceError when a column is missing or a value is malformed.
    """
    table = RequestsTable(path, num_requests)
    requested = "requested_output_tokens" if table.has("requested_output_tokens") else "output_tokens"
    prompts = table.counts("prompt_tokens")
    notes = (f"{table.num_absent} requests that never arrived are left out",) if table.num_absent else ()
    return Demand(
        table.arrivals(),
        prompts,
        table.counts(requested),
        contents=table.contents(prompts),
        session_id=table.optional("session_id"),
        turn=table.optional("turn"),
        image_tokens=table.optional("image_tokens"),
        reasoning_tokens=table.optional("reasoning_tokens"),
        priority=table.optional("priority"),
        num_samples=table.optional("num_samples"),
        beam_width=table.optional("beam_width"),
        tenant=table.optional("tenant"),
        notes=notes,
    )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            # `read_table` of pyarrow would import pandas.
            return pyarrow.parquet.ParquetFile(path).read()
        text = pa.string()
        options = pyarrow.csv.ConvertOptions(column_types={CONTENT: text}, strings_can_be_null=True)
        return pyarrow.csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise TraceError(path, None, f"cannot be read: {str(error).splitlines()[0]}") from None
