"""The command line: parse, call, print, exit code. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import gc
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_compare import compare_command
from .cli_fit_engine import fit_engine_command
from .cli_goodput import goodput_command
from .cli_ops import ops as ops_command
from .cli_report import report_command
from .cli_sweep import sweep_command
from .cli_validate import validate as validate_command
from .errors import USER_ERROR_EXIT_CODE, SimllmError
from .hot_modules import variant
from .sim.outcome.console import benchmark_block, speed_line
from .sim.outcome.files import check_output_folder
from .sim.outcome.progress import ProgressBar
from .sim.run import prepare, simulate_prepared
from .sim.scenario import Scenario, load_scenario
from .sim.study.study_spec import StudySpec
from .sim.workload.build import build_demand
from .sim.workload.workload_file import write_demand
from .version import __version__

app = typer.Typer(
    name="simllm",
    help="Predicts how fast, how well and how cheaply a large language model can be served.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioArgument = Annotated[str, typer.Argument(help="A scenario file, or the name of a shipped scenario.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override a field, e.g. pools.0.replicas=2. Repeatable."
    ),
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Override the scenario's seed.")]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"simllm {__version__} ({variant()})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""


@app.command()
def run(
    scenario: ScenarioArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write tables and summary there.")
    ] = None,
    overrides: SetOption = None,
    seed: SeedOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No memory budget, no progress.")] = False,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Let `scheduler: {kind: python}` run its file's code.")
    ] = False,
) -> None:
    """Simulate a scenario; print what `vllm bench serve` prints, and more.

    TPOT is (E2EL - TTFT) / (output tokens - 1) per request; ITL pools every gap between two tokens of all
    requests. TTFT runs from the request's arrival to its first token; there is no HTTP and no tokenizer.
    """
    loaded, folder = load_scenario(scenario, _overrides(overrides, seed))
    if output is not None:
        check_output_folder(output)
    prepared = prepare(loaded, folder, allow_python=allow_python)
    if not quiet:
        for deployment in prepared.deployments:
            typer.echo(deployment.budget.describe(), err=True)
        for note in prepared.demand.notes:
            typer.echo(f"note: {note}", err=True)
    if quiet:
        result = simulate_prepared(prepared)
    else:
        with ProgressBar(len(prepared.demand)) as bar:
            result = simulate_prepared(prepared, bar.update)
    gc.freeze()  # what the run made is kept to the end: the collector need not walk its millions of objects
    summary = result.summary()
    typer.echo(benchmark_block(summary))
    if not quiet:
        typer.echo(speed_line(summary, result.meta.wall_s), err=True)
    if output is not None:
        result.save(output)


@app.command()
def workload(
    scenario: ScenarioArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .jsonl to write.")],
    overrides: SetOption = None,
    seed: SeedOption = None,
) -> None:
    """Write the requests that a scenario would play, one JSON object a line; `kind: table` replays them."""
    loaded, folder = load_scenario(scenario, _overrides(overrides, seed))
    demand = build_demand(loaded.workload, seed=loaded.seed, base_dir=folder)
    write_demand(demand, output)
    typer.echo(f"{output}: {len(demand)} requests", err=True)


validate = app.command()(validate_command)
compare = app.command("compare")(compare_command)
sweep = app.command("sweep")(sweep_command)
goodput = app.command("goodput")(goodput_command)
report = app.command("report")(report_command)
ops = app.command()(ops_command)
fit_engine = app.command("fit-engine")(fit_engine_command)


@app.command(
    context_settings={
        "allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": [],
    },
)  # fmt: skip
def calibrate(context: typer.Context) -> None:
    """Measure this machine's GPU and fit a profile; `simllm calibrate -h` shows its commands."""
    # Fitting and measuring load what no other command needs, so only this one pays for it.
    from .calibrate.command import app as calibrate_app

    calibrate_app(args=context.args, prog_name="simllm calibrate")


class SchemaName(StrEnum):
    """Files that have a JSON Schema."""

    SCENARIO = "scenario"
    STUDY = "study"


@app.command()
def schema(
    name: Annotated[SchemaName, typer.Argument(help="Of which file.")] = SchemaName.SCENARIO,
) -> None:
    """Print the JSON Schema of a scenario or a study, for editors."""
    model = Scenario if name is SchemaName.SCENARIO else StudySpec
    typer.echo(json.dumps(model.model_json_schema(), indent=2))


def _overrides(overrides: list[str] | None, seed: int | None) -> list[str]:
    return [*(overrides or ()), *(() if seed is None else (f"seed={seed}",))]


def main() -> None:
    """Runs the command line; a user's error is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except SimllmError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(USER_ERROR_EXIT_CODE)


if __name__ == "__main__":
    main()
