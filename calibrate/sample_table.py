"""Tables of samples as files: parquet with the host that they come from, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import CalibrationError
from .files import write_whole

_HOST_PREFIX = b"simllm.host."


def write_table(
    path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, host: Mapping[str, str]
) -> None:
    """Writes rows and their host at once, so that a reader never sees half of a file."""
    metadata = {_HOST_PREFIX + key.encode(): value.encode() for key, value in sorted(host.items())}
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(metadata))
    content = BytesIO()
    pq.write_table(table, content, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())


def read_table(path: Path, schema: pa.Schema, what: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns the rows of a file and their host; `what` names the rows in an error.

    Raises: CalibrationError, one line, if it is no such table.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=schema).to_pylist()
        # pyarrow drops the metadata where a schema is asked for.
        metadata: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise CalibrationError(f"{path}: no table of {what}: {' '.join(str(error).split())}") from None
    host = {
        key.removeprefix(_HOST_PREFIX).decode(): value.decode()
        for key, value in metadata.items()
        if key.startswith(_HOST_PREFIX)
    }
    return rows, host
