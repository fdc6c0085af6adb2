"""One worker as a process of this machine: asked, it replies, or dies and says how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from .orders import Payload

_MODULE = f"{__package__}.worker"
# Where the package lies.
_IMPORT_ROOT = Path(__file__).parents[__package__.count(".") + 1]


class WorkerProcess:
    """A process that starts when it is first asked, and anew after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False
        self._changing = Lock()

    def ask(self, payload: Payload) -> dict[str, Any]:
        """Returns the reply to an order; if the process dies over it, an error that says how."""
        with self._changing:
            if self._is_closed:
                return {"error": "the study has ended"}
            process = self._process = self._process or _start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(payload) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it died before it read the order
            line = ""
        if line.endswith("\n"):
            reply: dict[str, Any] = json.loads(line)
            return reply
        _bury(process)
        self._process = None
        return {"error": _cause_of_death(process.returncode)}

    def close(self) -> None:
        """Ends the process, whatever it does, for good; from any thread."""
        with self._changing:
            self._is_closed = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()

    def bury(self) -> None:
        """Waits for the process that was closed, and frees its pipes."""
        if self._process is not None:
            _bury(self._process)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_paths())},
        start_new_session=True,  # Ctrl-C is for the study, which ends its workers itself
    )


def _import_paths() -> list[str]:
    """Returns the paths of this process's environment, after a checkout's own: workers import the same."""
    inherited = os.environ.get("PYTHONPATH")
    is_installed = _IMPORT_ROOT.name in ("site-packages", "dist-packages")  # which Python knows by itself
    return [*([] if is_installed else [str(_IMPORT_ROOT)]), *([inherited] if inherited else [])]


def _bury(process: subprocess.Popen[str]) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written has lost its reader
                pipe.close()


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    name = signal.Signals(-code).name
    perhaps = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"the worker was killed by {name}{perhaps}"
