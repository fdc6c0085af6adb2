"""The command `simllm sweep`: a scenario along axes, with seeds, on all cores or a Ray cluster."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import Problem, ScenarioError
from .sim.outcome.files import write_text_whole
from .sim.study.defaults import CONFIDENCE
from .sim.study.progress import StudyBar

if TYPE_CHECKING:
    import pandas as pd

    from .sim.study.study_result import StudyResult

INTERRUPTED_EXIT_CODE = 130
# Longer tables are in the files.
_MAX_ROWS = 60
_HEADINGS = {
    "request_throughput": "req/s",
    "output_throughput": "output tok/s",
    "output_throughput_per_gpu": "tok/s per GPU",
    "mean_ttft_ms": "TTFT mean [ms]",
    "p99_ttft_ms": "TTFT p99 [ms]",
    "mean_tpot_ms": "TPOT mean [ms]",
    "p99_tpot_ms": "TPOT p99 [ms]",
    "mean_e2el_ms": "E2EL mean [ms]",
}


def sweep_command(
    study: Annotated[str, typer.Argument(help="A study's file, or the name of a shipped study.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Results; run again, it goes on there.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the scenario. Repeatable."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="AXIS=VALUE", help="Also print differences from this value, seed by seed."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the intervals.")] = CONFIDENCE,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one per core.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster instead (simllm[ray]).")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points again that failed before.")
    ] = False,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Let `scheduler: {kind: python}` run its file's code.")
    ] = False,
) -> None:
    """Simulate a scenario at every combination of axes and seeds; stop it at any time, and it goes on.

    DIR/results.parquet has a row per point. Exit code 0: every point has a result; 1: some failed, and say
    why in `error`; 2: the study is wrong; 130: interrupted.
    """
    # Statistics load for seconds, which no other command shall wait for.
    from .sim.study.study import Study, check_study_folder

    wanted = Study.load(study, overrides or ())
    chosen = None if baseline is None else _baseline(baseline)
    check_study_folder(output)
    try:
        with StudyBar() as bar:
            result = wanted.run(
                output,
                jobs=jobs,
                ray=ray,
                allow_python=allow_python,
                retry_failed=retry_failed,
                on_progress=bar.update,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command goes on where {output} ends", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    _tell(result, output, chosen, confidence)
    if result.errors:
        raise typer.Exit(1)


def _tell(result: StudyResult, output: Path, baseline: tuple[str, object] | None, confidence: float) -> None:
    errors = result.errors
    failed = f", {len(errors)} failed, the first: {errors[0]}" if errors else ""
    typer.echo(f"{output}: {result.num_points} points{failed}", err=True)
    if len(errors) == result.num_points:
        return
    means = result.intervals(confidence=confidence)
    write_text_whole(output / "intervals.csv", means.to_csv(index=False))
    _print(means, list(result.axes), f"mean and half width of the {confidence:.0%} interval")
    if baseline is not None:
        axis, value = baseline
        differences = result.differences(axis, value, confidence=confidence)
        write_text_whole(output / "differences.csv", differences.to_csv(index=False))
        _print(
            differences, list(result.axes), f"difference from {axis}={value}, seed by seed, {confidence:.0%}"
        )


def _baseline(text: str) -> tuple[str, object]:
    axis, separator, value = text.partition("=")
    if not separator or not axis:
        raise ScenarioError([Problem("--baseline", "must be AXIS=VALUE", text)])
    return axis, yaml.safe_load(value)


def _print(tidy: pd.DataFrame, axes: list[str], title: str) -> None:
    """Prints a row per point, a column per metric; long tables are left to the files."""
    points = list(tidy.groupby(axes, sort=False, dropna=False)) if axes else [((), tidy)]
    if len(points) > _MAX_ROWS:
        typer.echo(f"{title}: {len(points)} rows, only in the files", err=True)
        return
    table = Table(*axes, title=title)
    for heading in _HEADINGS.values():
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for values, rows in points:
        by_metric = {row["metric"]: row for row in rows.to_dict("records")}
        cells = [_shown(by_metric.get(metric)) for metric in _HEADINGS]
        table.add_row(*map(str, values), *cells)
    Console(width=max(150, 17 * (len(axes) + len(_HEADINGS)))).print(table)


def _shown(row: Mapping[Hashable, Any] | None) -> str:
    if row is None:
        return ""
    mean, low = row["mean"], row["low"]
    return _number(mean) if low != low else f"{_number(mean)} ± {_number(mean - low, digits=2)}"


def _number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
