"""The files of one recorded run, and what it is called."""

from __future__ import annotations

from pathlib import Path

_STEPS = ".steps.csv.gz"


def run_name(path: Path) -> str:
    """Returns what a result file's run is called: the file's folder, and its name without endings."""
    return f"{path.absolute().parent.name}/{_stem(path)}"


def steps_beside(path: Path) -> Path:
    """Returns where the record of steps of a result file lies."""
    return path.with_name(_stem(path) + _STEPS)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")
