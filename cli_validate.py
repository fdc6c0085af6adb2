"""The command `simllm validate`: its options, what it prints, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .errors import SimllmError
from .sim.outcome.files import write_text_whole
from .sim.outcome.page import check_plots
from .sim.validate import GivenSettings, Validation, summary_dict, validate_run
from .sim.validate.policy_check import check_policy
from .sim.validate.report import write_report
from .sim.validate.tables import notes_of, validation_tables


class StepTimes(StrEnum):
    """Where `validate` takes the times of steps from."""

    PREDICTED = "predicted"
    RECORDED = "recorded"


BenchOption = Annotated[
    list[Path],
    typer.Option("--bench", metavar="FILE", help="A detailed result of `vllm bench serve`. Repeatable."),
]
StepsOption = Annotated[
    list[Path] | None,
    typer.Option("--steps", metavar="FILE", help="The engine's record of its steps, one for each --bench."),
]
MoreArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        help="More results, and records of steps (.csv, .csv.gz), as a shell expands --bench *.json.",
        show_default=False,
    ),
]
ProfileOption = Annotated[
    str | None, typer.Option(help="Simulate on this device or profile instead of the file's GPU.")
]
ScenarioOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCENARIO", help="Takes the engine's settings from there for files without an `engine` block."
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a setting, e.g. pools.0.parallel.tp=2."),
]
ModelOption = Annotated[str | None, typer.Option(help="Short for --set pools.0.model=...")]
TpOption = Annotated[int | None, typer.Option(min=1, help="Short for --set pools.0.parallel.tp=...")]
BlocksOption = Annotated[
    int | None, typer.Option(min=2, help="KV blocks that the engine reported: pools.0.kv.num_gpu_blocks.")
]
StepTimesOption = Annotated[
    StepTimes, typer.Option(help="recorded: feed in the recorded step times and compare the batches instead.")
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the errors as JSON, too.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write overlay plots there (HTML).")
]


def validate(
    bench: BenchOption,
    more: MoreArgument = None,
    steps: StepsOption = None,
    profile: ProfileOption = None,
    scenario: ScenarioOption = None,
    overrides: OverridesOption = None,
    model: ModelOption = None,
    tp: TpOption = None,
    num_gpu_blocks: BlocksOption = None,
    step_times: StepTimesOption = StepTimes.PREDICTED,
    json_path: JsonOption = None,
    output: OutputOption = None,
) -> None:
    """Replay what a real engine did and print how far off the simulation is, metric by metric.

    Errors are simulated / measured - 1. TTFT, TPOT, ITL and E2EL are those of `vllm bench serve`.
    """
    short = {"model": model, "parallel.tp": tp, "kv.num_gpu_blocks": num_gpu_blocks}
    named = (f"pools.0.{name}={value}" for name, value in short.items() if value is not None)
    given = GivenSettings(profile, scenario, (*named, *(overrides or ())))
    records = _pairs([*bench, *_results(more)], [*(steps or ()), *_records(more)])
    if step_times is StepTimes.RECORDED:
        for path, record in records.items():
            if record is None:
                raise SimllmError("--step-times recorded: give the engine's steps with --steps")
            typer.echo(check_policy(path, record, given).describe())
        return
    if output is not None:
        check_plots(output)
    runs = [validate_run(path, steps_path=record, given=given) for path, record in records.items()]
    _tell(runs, json_path, output)


def _tell(runs: Sequence[Validation], json_path: Path | None, output: Path | None) -> None:
    Console(width=120).print(*validation_tables(runs), sep="\n")
    for note in notes_of(runs):
        typer.echo(f"note: {note}", err=True)
    if json_path is not None:
        told = {"runs": [run.as_dict() for run in runs], "summary": summary_dict(runs)}
        write_text_whole(json_path, json.dumps(told, indent=2, allow_nan=False) + "\n")
    if output is not None:
        typer.echo(f"plots: {write_report(runs, output)}", err=True)


def _pairs(bench: Sequence[Path], steps: Sequence[Path]) -> dict[Path, Path | None]:
    """Returns the record of each result's steps, in the order given; None for all without records."""
    if steps and len(steps) != len(bench):
        raise SimllmError(f"--steps: give one file for each --bench ({len(bench)}), got {len(steps)}")
    return dict(zip(bench, steps, strict=True)) if steps else dict.fromkeys(bench)


def _results(paths: Sequence[Path] | None) -> list[Path]:
    return [path for path in paths or () if not _is_table(path)]


def _records(paths: Sequence[Path] | None) -> list[Path]:
    return [path for path in paths or () if _is_table(path)]


def _is_table(path: Path) -> bool:
    return path.name.endswith((".csv", ".csv.gz"))
