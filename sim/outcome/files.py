"""The files of a run: a folder that appears whole or not at all, the same bytes for the same run.

No file holds a date, a path or a real duration.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...errors import SimllmError
from .summary import Summary
from .tables import TableStream

RUN_FILES = (
    "requests.parquet",
    "requests.csv",
    "steps.parquet",
    "kv.parquet",
    "summary.json",
    "scenario.lock.yaml",
)


def check_output_folder(directory: Path) -> None:
    """Checks that a run may be written there; worth doing before simulating.

    Raises: SimllmError if `directory` is no folder or holds anything but the files of an earlier run.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise SimllmError(f"{directory}: is a file; the output needs a folder")
    foreign = sorted(entry.name for entry in directory.iterdir() if entry.name not in RUN_FILES)
    if foreign:
        raise SimllmError(
            f"{directory}: holds {foreign[0]!r}, which no simllm run wrote; choose a new or an empty folder"
        )


@contextmanager
def whole_folder(directory: Path) -> Iterator[Path]:
    """Yields a folder to fill; it takes `directory`'s place if the block succeeds, and vanishes if not.

    Raises: SimllmError if `directory` may not be replaced or cannot be written.
    """
    check_output_folder(directory)
    target = directory.resolve()
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        _take_place(partial, target)
    except OSError as error:
        raise SimllmError(f"{directory}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_table(stream: TableStream, *, parquet: Path, csv: Path | None = None) -> None:
    """Writes a table, a batch at a time, as Parquet and perhaps as CSV too."""
    categories = [field.name for field in stream.schema if pa.types.is_dictionary(field.type)]
    with ExitStack() as files:
        # Numbers hardly repeat: a dictionary would be built only to be thrown away.
        writer = pa.parquet.ParquetWriter(
            parquet, stream.schema, compression="snappy", use_dictionary=categories
        )
        writers = [files.enter_context(writer)]
        if csv is not None:
            writers.append(files.enter_context(pa.csv.CSVWriter(csv, stream.schema)))
        for batch in stream.batches:
            for open_writer in writers:
                open_writer.write_batch(batch)


def write_summary(summary: Summary, path: Path) -> None:
    """Writes a summary as JSON.

    Raises: ValueError if a value is nan or infinite, which JSON cannot hold.
    """
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_text_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all. Raises: SimllmError if it cannot be written."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a file to write beside `path`; it takes its place if the block succeeds, and vanishes if not.

    Raises: SimllmError if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SimllmError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _take_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)
