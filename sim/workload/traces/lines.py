"""Reading text traces line by line, so that every complaint can name its file and line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ....errors import TraceError, nearest_choice

Row = dict[str, Any]


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Opens a text file, also a gzipped one (.gz).

    Raises: TraceError when it cannot be read or is not UTF-8 text.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"is not UTF-8 text ({error.reason})") from None
    except (OSError, EOFError) as error:
        raise TraceError(path, None, f"cannot be read: {error}") from None


def json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields (line number, object) of a JSONL file, empty lines left out.

    Raises: TraceError for a line that is no JSON object.
    """
    with open_text(path) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                yield line, parse_object(text, path, line)


def parse_object(text: str, path: Path, line: int | None) -> Row:
    """Returns the JSON object in `text`.

    Raises: TraceError when it is no JSON or no object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(path, line, f"is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise TraceError(path, line, f"expected a JSON object (got {shown(value)})")
    return value


def field(row: Row, name: str, path: Path, line: int | None) -> Any:
    """Returns a field that must be there.

    Raises: TraceError naming the field that is missing and the nearest one that is there.
    """
    if name in row:
        return row[name]
    hint = nearest_choice(name, row)
    raise TraceError(path, line, f"has no {name!r}" + (f"; did you mean {hint!r}?" if hint else ""))


def count(row: Row, name: str, path: Path, line: int | None) -> int:
    """Returns a field that must be a whole number >= 1."""
    return check_count(field(row, name, path, line), name, path, line)


def instant(row: Row, name: str, path: Path, line: int | None) -> float:
    """Returns a field that must be a number >= 0."""
    return check_instant(field(row, name, path, line), name, path, line)


def check_count(value: object, name: str, path: Path, line: int | None, *, at_least: int = 1) -> int:
    """Returns `value`.

    Raises: TraceError when it is no whole number, or below `at_least`, or beyond 64 bits.
    """
    if type(value) is not int or not at_least <= value < 2**63:
        raise TraceError(path, line, f"{name} must be a whole number >= {at_least} (got {shown(value)})")
    return value


def check_instant(value: object, name: str, path: Path, line: int | None) -> float:
    """Returns `value`.

    Raises: TraceError when it is no number, negative or not finite.
    """
    if not (type(value) is int or type(value) is float) or not 0 <= value < math.inf:
        raise TraceError(path, line, f"{name} must be a number >= 0 (got {shown(value)})")
    return float(value)


def shown(value: object) -> str:
    """Returns a value as JSON, cut to fit a line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
