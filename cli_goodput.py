"""The command `simllm goodput`: the highest request rate that keeps a service level objective."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .sim.outcome.files import write_text_whole
from .sim.outcome.page import check_plots
from .sim.study.cost import parse_prices
from .sim.study.defaults import CONFIDENCE, NUM_SEEDS, TOLERANCE

if TYPE_CHECKING:
    from .sim.study.goodput_result import Goodput
    from .sim.study.trial import Trial


def goodput_command(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped scenario.")],
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[_PNN]=LIMIT,...",
            help="Limits, as in ttft_p99=500ms,tpot_p99=50ms; by default the scenario's `slo`.",
        ),
    ] = None,
    attainment: Annotated[
        float | None,
        typer.Option(
            help="Share of requests that must keep all limits at once; 0.9 if one names no percentile."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each rate, with a seed each; one gives no confidence.")
    ] = NUM_SEEDS,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="With which the SLO is kept at the rate.")
    ] = CONFIDENCE,
    tolerance: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Relative width of the last bracket.")
    ] = TOLERANCE,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="[DEVICE=]USD", help="Of a GPU-hour, in place of the shipped one. Repeatable."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a field. Repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write curve, runs and a plot there.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one per core.")
    ] = None,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Let `scheduler: {kind: python}` run its file's code.")
    ] = False,
) -> None:
    """Find the highest request rate that keeps an SLO, per GPU and per dollar.

    ttft_p99=500ms: 99 % of the requests have a TTFT of 500 ms at most; ttft=500ms: the limit of a request,
    which --attainment says how many must keep.
    """
    # Statistics and optimisers load for seconds, which no other command shall wait for.
    from .sim.study.goodput import goodput

    if output is not None:
        check_plots(output)
    result = goodput(
        scenario,
        slo,
        attainment=attainment,
        num_seeds=seeds,
        confidence=confidence,
        tolerance=tolerance,
        prices=parse_prices(price or ()),
        overrides=overrides or (),
        allow_python=allow_python,
        jobs=jobs,
        on_trial=lambda trial: typer.echo(_tried(trial), err=True),
    )
    Console(width=150).print(_curve(result))
    for line in _headline(result):
        typer.echo(line)
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    _write(result, output, json_path)


def _tried(trial: Trial) -> str:
    verdict = "kept" if trial.is_met else f"lost, {trial.binding}"
    return f"{trial.request_rate:g} req/s: {verdict}{', unstable' if trial.is_unstable else ''}"


def _curve(result: Goodput) -> Table:
    needed, terms = result.objective.needed, result.objective.terms
    table = Table(title=f"{result.scenario_name}: mean over {len(result.summary()['seeds'])} runs per rate")
    shares = (f"{name} [%], needs {100 * share:g}" for name, share in needed.items())
    limits = (f"{term.name} [ms], limit {term.limit_ms:g}" for term in terms)
    for heading in ("req/s", *shares, *limits, "output tok/s", "SLO", "queue"):
        table.add_column(Text(heading), justify="right")
    for trial in result.trials.values():
        table.add_row(
            f"{trial.request_rate:g}",
            *(f"{100 * sum(trial.shares(name)) / len(trial.seeds):.2f}" for name in needed),
            *(_ms(trial.percentile_ms(term.name)) for term in terms),
            f"{trial.mean('output_throughput') or 0:,.0f}",
            "kept" if trial.is_met else "lost",
            "grows" if trial.is_unstable else "stable",
        )
    return table


def _ms(value: float | None) -> str:
    return "never" if value is None else f"{value:,.1f}"


def _headline(result: Goodput) -> Iterator[str]:
    sure = "" if result.knob.is_recorded else f" with {result.confidence:.0%} confidence"
    yield f"Goodput (req/s):                         {result.request_rate:g}{sure}"
    if result.bracket.high is not None:
        yield f"Lost at (req/s):                         {result.bracket.high:g}, by {result.binding}"
    if (breaking := result.breaking_rate) is not None:
        ends = f"{result.confidence:.0%} interval {breaking.low:.4g} to {breaking.high:.4g}"
        yield f"Single runs lose it at (req/s):          {breaking.mean:.4g}, {ends}"
    yield f"GPUs:                                    {result.fleet.num_gpus}"
    yield f"Goodput per GPU (req/s):                 {result.request_rate_per_gpu:.4g}"
    if result.requests_per_usd is not None and result.fleet.usd_per_hour is not None:
        yield f"Cost (USD per hour):                     {result.fleet.usd_per_hour:.2f}"
        yield f"Goodput per dollar (requests):           {result.requests_per_usd:,.0f}"
    if result.usd_per_million_output_tokens is not None:
        yield f"USD per million output tokens:           {result.usd_per_million_output_tokens:.3f}"
    for device, source in result.fleet.sources.items():
        yield f"Price of {device + ':':<31} {source}"
    if result.request_rate:
        yield f"Play it: --set {result.knob.path}={result.knob.setting(result.request_rate):.6g}"


def _write(result: Goodput, output: Path | None, json_path: Path | None) -> None:
    if json_path is not None:
        write_text_whole(json_path, json.dumps(result.summary(), indent=2, allow_nan=False) + "\n")
    from .sim.study.goodput_plot import FILE_NAME, goodput_html

    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text_whole(output / "curve.csv", result.curve.to_csv(index=False))
        write_text_whole(output / "runs.csv", result.runs.to_csv(index=False))
        write_text_whole(output / FILE_NAME, goodput_html(result))
        typer.echo(f"plot: {output / FILE_NAME}", err=True)
