"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CalibrationError


def check_writable(path: Path) -> None:
    """Checks that a file may be written at `path`; worth doing before measuring.

    Raises: CalibrationError, one line, if `path` is a folder or its own folder does not exist.
    """
    if path.is_dir():
        raise CalibrationError(f"{path}: is a folder; name a file")
    if not path.resolve().parent.is_dir():
        raise CalibrationError(f"{path}: there is no folder {path.parent}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes under another name first, then moves the file to its place.

    Raises: CalibrationError, one line, if it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Raises: CalibrationError, one line, if `path` exists and is no folder."""
    if path.exists() and not path.is_dir():
        raise CalibrationError(f"{path}: is a file; name a folder")
