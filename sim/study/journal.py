"""The journal of a sweep: a line per finished point, added the moment it ends and never changed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from ...errors import SimllmError
from .orders import Answer

if sys.platform != "win32":
    import fcntl

FILE_NAME = "journal.jsonl"


class Journal:
    """Answers by the digest of their point, kept in a file. Used in a `with` statement."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self.answers: dict[str, Answer] = {}

    def __enter__(self) -> Journal:
        """Opens the file and reads what is in it; a last line that was cut off is dropped.

        Raises: SimllmError if another sweep is writing here, or if a line is damaged.
        """
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise SimllmError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        try:
            self._lock()
            self._read()
        except SimllmError:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def add(self, answer: Answer) -> None:
        """Keeps an answer, in the file first: what is there survives whatever happens to this process.

        Raises: SimllmError if it cannot be written.
        """
        line = {"point": answer.key, "wall_s": round(answer.wall_s, 3)}
        result: dict[str, Any] = {"error": answer.error} if answer.row is None else {"row": answer.row}
        text = (json.dumps({**line, **result}) + "\n").encode()
        try:
            is_whole = os.write(self._file, text) == len(text)
        except OSError as error:
            raise SimllmError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        if not is_whole:
            raise SimllmError(f"{self._path}: cannot be written: the disk is full")
        self.answers[answer.key] = answer

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go when the process ends
        except BlockingIOError:
            raise SimllmError(f"{self._path}: another sweep is writing here") from None

    def _read(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                answer = Answer(entry["point"], entry.get("row"), entry.get("error"), entry["wall_s"])
            except (ValueError, KeyError, TypeError):
                raise SimllmError(f"{self._path}:{number}: is no line of a sweep's journal") from None
            self.answers[answer.key] = answer
