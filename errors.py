"""The errors that simllm raises on purpose, and the exit code they mean.

SimllmError                 a user can act on it: one line, exit code 2
├── ScenarioError           a scenario field is wrong; carries every problem at once
├── InfeasibleError         the model does not fit; carries the sum of bytes
├── TraceError              a line of a trace is malformed: ``file:line: what``
├── ProfileError            a hardware profile is missing, malformed or unknown
└── CalibrationError        a measurement cannot be made on this host
InvariantError              a conservation law broke: our bug, with the equation and its numbers
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

USER_ERROR_EXIT_CODE = 2


class SimllmError(Exception):
    """An error that a user can act on; shown as one line without a traceback."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong field of a scenario: where, what it holds, what was expected."""

    path: str
    message: str
    value: object = None
    nearest: str | None = None

    def __str__(self) -> str:
        shown = "" if self.value is None else f" (got {self.value!r})"
        hint = "" if self.nearest is None else f"; did you mean {self.nearest!r}?"
        return f"{self.path}: {self.message}{shown}{hint}"


class ScenarioError(SimllmError):
    """A scenario is invalid; `problems` lists every wrong field."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InfeasibleError(SimllmError):
    """The model does not fit the device; the message holds the sum of bytes."""


class TraceError(SimllmError):
    """A trace is malformed; the message begins with ``file:line``."""

    def __init__(self, path: object, line: int | None, what: str) -> None:
        self.path, self.line, self.what = path, line, what
        where = f"{path}" if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {what}")


class ProfileError(SimllmError):
    """A hardware profile is missing, malformed, or lacks what was asked of it."""


class CalibrationError(SimllmError):
    """A measurement cannot be made on this host."""


class InvariantError(AssertionError):
    """A conservation law broke: a defect of simllm, not of the scenario."""


def nearest_choice(value: object, choices: Iterable[str]) -> str | None:
    """Returns the choice that resembles `value` most, or None if none does."""
    matches = get_close_matches(str(value), list(choices), n=1, cutoff=0.4)
    return matches[0] if matches else None
