"""Many runs at once: mean absolute errors by class, beside the goal and the floor that real runs set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .compare import THROUGHPUTS, measured_statistics
from .goals import CLASSES, COUNT_GOALS, GOAL_METRICS, GoalClass, mean_absolute
from .measured import MeasuredRun
from .validation import Validation


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """Errors of the runs of one class.

    errors: mean absolute errors by metric. floor: the same between runs that were repeated on another GPU,
    empty where none was. is_met: whether an error is within its goal.
    """

    goal_class: GoalClass
    files: tuple[str, ...]
    errors: dict[str, float]
    floor: dict[str, float]

    @property
    def is_met(self) -> dict[str, bool]:
        """By metric with a goal that was measured: is the error within it?"""
        goals = {**self.goal_class.goals, **COUNT_GOALS}
        return {name: self.errors[name] <= goals[name] for name in goals if name in self.errors}

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values for JSON."""
        return {
            "num_runs": len(self.files),
            "files": list(self.files),
            "rule": self.goal_class.rule,
            "errors": self.errors,
            "goals": {**self.goal_class.goals, **COUNT_GOALS},
            "is_met": self.is_met,
            "floor": self.floor,
        }


def summaries(runs: Sequence[Validation]) -> list[ClassSummary]:
    """Returns a summary of each class that occurs, in the order of the goals."""
    found = []
    for goal_class in CLASSES:
        members = [run for run in runs if run.goal_class is goal_class]
        if members:
            files = tuple(run.file for run in members)
            errors = mean_absolute([run.flat_errors() for run in members])
            found.append(ClassSummary(goal_class, files, errors, floor(members)))
    return found


def summary_dict(runs: Sequence[Validation]) -> dict[str, Any]:
    """Returns the summary of all runs as plain values for JSON."""
    return {
        "num_runs": len(runs),
        "errors": mean_absolute([run.flat_errors() for run in runs]),
        "floor": floor(runs),
        "classes": {item.goal_class.name: item.as_dict() for item in summaries(runs)},
    }


def floor(runs: Sequence[Validation]) -> dict[str, float]:
    """Returns how far real runs differ when repeated: mean absolute differences over pairs of runs.

    A pair is `NAME.json` and `NAME-again.json` (also .gz) in one folder: the same requests on another GPU
    of the same host. No prediction can be told from the truth below this.
    """
    by_path = {Path(run.file): run.run for run in runs}
    differences = [
        _difference(run, by_path[again])
        for path, run in by_path.items()
        if (again := _repeated(path)) in by_path
    ]
    return mean_absolute(differences)


def _repeated(path: Path) -> Path:
    name, ending = path.name.removesuffix(".gz").removesuffix(".json"), "".join(path.suffixes[-2:])
    return path.with_name(f"{name}-again{ending if path.suffix == '.gz' else path.suffix}")


def _difference(first: MeasuredRun, again: MeasuredRun) -> dict[str, float]:
    flat = {name: getattr(again, name) / getattr(first, name) - 1 for name in THROUGHPUTS}
    both = [measured_statistics(run, np.ones(len(run.ttft_s), dtype=np.bool_)) for run in (first, again)]
    for name in GOAL_METRICS:
        metric, _, statistic = name.partition("_")
        if metric in both[0] and both[0][metric].get(statistic):
            flat[name] = both[1][metric][statistic] / both[0][metric][statistic] - 1
    return flat
