"""Azure LLM inference traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

The files of 2023 have instants without a zone, those of 2024 with one, and whole seconds without a fraction.
Source: https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md and 2024.md).
"""

from __future__ import annotations

import csv
import re
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from ....errors import TraceError, nearest_choice
from ..demand import Demand, IntColumn
from ..spec import AzureSpec
from .columns import int_column
from .lines import open_text

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_NS_PER_S = 1e9
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def load_azure(spec: AzureSpec, path: Path) -> Demand:
    """Returns the rows in the order of the file, arrivals [s] from the earliest one.

    Raises: TraceError naming the first malformed line.
    """
    zone = _check_head(path)
    try:
        instants, prompts, outputs = _read_columns(path, zone, spec.num_requests)
    except pa.ArrowInvalid as error:
        _complain_of_first_bad_line(path)
        raise TraceError(path, None, str(error).splitlines()[0]) from None
    if min(prompts.min(), outputs.min()) < 1:
        _complain_of_first_bad_line(path)
    # Differences are taken in whole nanoseconds: floats since 1970 would be off by a tenth of a microsecond.
    arrived_at = (instants - instants.min()) / _NS_PER_S
    return Demand(arrived_at, prompts, outputs, origin=f"azure trace {spec.path}")


def _check_head(path: Path) -> str | None:
    """Returns the zone in which the instants are to be read; raises TraceError for a missing column."""
    with open_text(path) as file:
        head = list(islice(csv.reader(file), 2))
    header = head[0] if head else []
    for name in COLUMNS:
        if name not in header:
            hint = nearest_choice(name, header)
            raise TraceError(path, 1, f"has no column {name}" + (f"; did you mean {hint!r}?" if hint else ""))
    has_zone = any(_ZONE.search(cell) for row in head[1:] for cell in row)
    return "UTC" if has_zone else None


def _read_columns(path: Path, zone: str | None, limit: int | None) -> tuple[IntColumn, IntColumn, IntColumn]:
    """Returns instants [ns], prompt and output tokens of the first `limit` rows, or of all."""
    types = (pa.timestamp("ns", zone), pa.int64(), pa.int64())
    reader = pyarrow.csv.open_csv(
        path,
        # One thread: batches of a megabyte are parsed as fast as they are read, and a limit stops early.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict(zip(COLUMNS, types, strict=True)), include_columns=COLUMNS, null_values=[]
        ),
    )
    parts: list[tuple[IntColumn, ...]] = []
    num_rows = 0
    for batch in reader:
        instants, prompts, outputs = batch.columns
        parts.append((int_column(instants.view(pa.int64())), int_column(prompts), int_column(outputs)))
        num_rows += batch.num_rows
        if limit is not None and num_rows >= limit:
            break
    if not num_rows:
        raise TraceError(path, None, "holds no requests")
    instants, prompts, outputs = (np.concatenate(column)[:limit] for column in zip(*parts, strict=True))
    return instants, prompts, outputs


def _complain_of_first_bad_line(path: Path) -> None:
    """Raises TraceError for the first line that is malformed, found the slow way."""
    with open_text(path) as file:
        reader = csv.reader(file)
        header = next(reader)
        places = [header.index(name) for name in COLUMNS]
        for cells in filter(None, reader):
            if len(cells) != len(header):
                raise TraceError(path, reader.line_num, f"has {len(cells)} cells instead of {len(header)}")
            instant, prompt, output = (cells[place] for place in places)
            _check_instant(instant, path, reader.line_num)
            _check_tokens(COLUMNS[1], prompt, path, reader.line_num)
            _check_tokens(COLUMNS[2], output, path, reader.line_num)


def _check_instant(cell: str, path: Path, line: int) -> None:
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        raise TraceError(path, line, f"TIMESTAMP must be a date and time (got {cell!r})") from None


def _check_tokens(name: str, cell: str, path: Path, line: int) -> None:
    if not cell.strip().isdecimal() or int(cell) < 1:
        raise TraceError(path, line, f"{name} must be a whole number >= 1 (got {cell!r})")
