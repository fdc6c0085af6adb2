"""The command `simllm compare`: one scenario under several schedulers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .sim.outcome.files import write_text_whole
from .sim.outcome.page import check_plots
from .sim.study.compare import COLUMNS, Compared, compare, comparison_frame
from .sim.study.compare_plot import FILE_NAME, comparison_html


def compare_command(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped scenario.")],
    schedulers: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Schedulers to run, settings of theirs behind colons: vllm_v1,sglang:schedule_policy=lpm.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write a table and a plot there.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a field. Repeatable.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the runs' summaries as JSON.")
    ] = None,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Let `scheduler: {kind: python}` run its file's code.")
    ] = False,
) -> None:
    """Simulate a scenario under several schedulers, on the same requests, and lay them side by side."""
    if output is not None:
        check_plots(output)
    runs = compare(
        scenario,
        [name.strip() for name in schedulers.split(",") if name.strip()],
        overrides=overrides or (),
        allow_python=allow_python,
        on_run=lambda name: typer.echo(f"running {name}", err=True),
    )
    Console(width=150).print(_table(runs))
    if json_path is not None:
        told = {run.name: run.summary for run in runs}
        write_text_whole(json_path, json.dumps(told, indent=2, allow_nan=False) + "\n")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text_whole(output / "comparison.csv", comparison_frame(runs).to_csv(index=False))
        write_text_whole(output / FILE_NAME, comparison_html(Path(scenario).stem, runs))
        typer.echo(f"plot: {output / FILE_NAME}", err=True)


def _table(runs: Sequence[Compared]) -> Table:
    table = Table("scheduler")
    for heading in COLUMNS.values():
        table.add_column(Text(heading), justify="right")  # no markup: units stand in brackets
    for run in runs:
        table.add_row(run.name, *(_shown(run.summary[key]) for key in COLUMNS))
    return table


def _shown(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
