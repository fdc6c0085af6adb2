"""The errors of a validation as tables for the console."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table

from .compare import LATENCIES, Compared, Count
from .files import run_name
from .goals import COUNT_GOALS, GOAL_METRICS
from .measured import STATISTICS
from .saturation import Saturation
from .summary import ClassSummary, summaries
from .validation import Validation


def validation_tables(runs: Sequence[Validation]) -> list[Table]:
    """Returns a table of the runs' errors, one of the step times' where steps were given, one by class."""
    tables = [_run_table(runs)]
    if any(run.step_times for run in runs):
        tables.append(_step_table(runs))
    return [*tables, _class_table(summaries(runs))]


def notes_of(runs: Sequence[Validation]) -> list[str]:
    """Returns a line for each assumption, cold step or loss of each run."""
    return [f"{short_name(run.file)}: {note}" for run in runs for note in run.notes]


def _run_table(runs: Sequence[Validation]) -> Table:
    run_column = Column("run", overflow="fold")
    columns = (run_column, "throughput", "metric", *STATISTICS, "load")
    table = Table(*columns, title="simulated / measured - 1")
    for run in runs:
        compared = run.compared
        heads = [(short_name(run.file), percent(compared.throughput_errors["output_throughput"]))]
        tails = [load_of(run.saturation), *counts_of(compared)]
        for number, metric in enumerate(LATENCIES):
            errors = (percent(compared.errors[metric].get(name)) for name in STATISTICS)
            head = heads[number] if number < len(heads) else ("", "")
            table.add_row(*head, metric, *errors, tails[number] if number < len(tails) else "")
        table.add_section()
    return table


def _step_table(runs: Sequence[Validation]) -> Table:
    columns = ("run", "steps", "number", "measured [s]", "error of the sum", "median error", "cold")
    table = Table(*columns, title="step times")
    for run in runs:
        for kind, errors in run.step_times.items():
            name = short_name(run.file) if kind == next(iter(run.step_times)) else ""
            times = (f"{errors.measured_s:.3f}", percent(errors.error), percent(errors.median_error))
            table.add_row(name, kind, str(errors.num_steps), *times, str(errors.num_cold))
        table.add_section()
    return table


def _class_table(classes: Sequence[ClassSummary]) -> Table:
    table = Table(
        "class",
        "runs",
        "metric",
        "error",
        "goal",
        "real again",
        title="mean absolute errors by class; real again: how far real runs differ when repeated",
    )
    for item in classes:
        goals = {**item.goal_class.goals, **COUNT_GOALS}
        names = [name for name in (*GOAL_METRICS, *COUNT_GOALS) if name in item.errors]
        for number, name in enumerate(names):
            head = (item.goal_class.name, str(len(item.files))) if number == 0 else ("", "")
            cells = (
                percentage(item.errors[name]),
                percentage(goals.get(name)),
                percentage(item.floor.get(name)),
            )
            table.add_row(*head, name, *cells)
        table.add_section()
    return table


def load_of(saturation: Saturation) -> str:
    """Returns the verdict, and the load that it rests on."""
    load = "" if saturation.load is None else f" ({saturation.load:.0%} of capacity)"
    return f"{saturation.verdict}{load}"


def counts_of(compared: Compared) -> list[str]:
    """Returns the counts that occur on either side, in words."""
    counts = {"preemptions": compared.num_preemptions, "hit tokens": compared.prefix_hit_tokens}
    return [f"{name}: {_told(count)}" for name, count in counts.items() if count.simulated or count.measured]


def _told(count: Count) -> str:
    measured = "unknown" if count.measured is None else f"{count.measured:,}"
    error = "" if count.error is None else f", {percent(count.error)}"
    return f"{count.simulated:,} (measured {measured}{error})"


def short_name(file: str) -> str:
    """Returns the folder and the name of a run's file, without its endings."""
    return run_name(Path(file))


def percent(error: float | None) -> str:
    """Returns a signed relative error as text, `-` where there is none."""
    return "-" if error is None else f"{error:+.1%}"


def percentage(share: float | None) -> str:
    """Returns an unsigned share as text, `-` where there is none."""
    return "-" if share is None else f"{share:.1%}"
