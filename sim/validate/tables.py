"""The errors of a validation as tables for the console."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from . import Validation
from .compare import LATENCIES, STATISTICS


def validation_tables(runs: Sequence[Validation]) -> list[Table]:
    """Returns a table of the runs' errors and, where steps were given, one of the step times'."""
    tables = [_run_table(runs)]
    if any(run.step_times for run in runs):
        tables.append(_step_table(runs))
    return tables


def _run_table(runs: Sequence[Validation]) -> Table:
    table = Table("run", "throughput", "metric", *STATISTICS, "load", title="simulated / measured - 1")
    for validation in runs:
        run = validation.run
        for number, metric in enumerate(LATENCIES):
            errors = (percent(run.latency[metric].get(name)) for name in STATISTICS)
            name, throughput = short_name(run.file), percent(run.throughput["output_throughput"])
            head, tail = ((name, throughput), (run.saturation,)) if number == 0 else (("", ""), ())
            table.add_row(*head, metric, *errors, *tail)
        table.add_section()
    return table


def _step_table(runs: Sequence[Validation]) -> Table:
    table = Table("run", "steps", "number", "measured [s]", "error of the sum", "cold", title="step times")
    for validation in runs:
        for kind, errors in (validation.step_times or {}).items():
            name = short_name(validation.run.file) if kind == "all" else ""
            measured, error = f"{errors.measured_s:.3f}", percent(errors.error)
            table.add_row(name, kind, str(errors.num_steps), measured, error, str(errors.num_cold))
        table.add_section()
    return table


def short_name(file: str) -> str:
    """Returns the folder and the name of a run's file, without its endings."""
    path = Path(file)
    return f"{path.parent.name}/{path.name.split('.', 1)[0]}"


def percent(error: float | None) -> str:
    """Returns a signed relative error as text, `-` where there is none."""
    return "-" if error is None else f"{error:+.1%}"
