"""The commands below `simllm calibrate`: measure and fit, and each of the two alone; report; look at kernels.

Loaded only when one of them runs: fitting and measuring import what no simulation needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CalibrationError
from .arguments import parse_duration, parse_names
from .budget_command import budget_command
from .fit_command import check_profile_place, find_device, fit_command, fit_profile
from .host import describe_host
from .kernel_command import kernel_command
from .links_command import links_command
from .measure import measure_points
from .plan import make_plan
from .plan_command import plan_command
from .power_command import power_command
from .report_command import report_command
from .samples import SAMPLES_SUFFIX

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def samples_beside(profile: Path) -> Path:
    """Returns where the samples of a profile lie: `h200.yaml` -> `h200.samples.parquet`."""
    return profile.with_suffix(SAMPLES_SUFFIX)


@app.callback(invoke_without_command=True)
def calibrate(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The profile to write (YAML).")
    ] = None,
    budget: Annotated[str, typer.Option(metavar="TIME", help="How long to measure: 90s, 10m, 1h.")] = "10m",
    backend: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these, by comma: triton, cublas, sdpa-flash, ...")
    ] = "",
    ops: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these, by comma: gemm, attention, probe, rope, ...")
    ] = "",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device that the GPU is; found by its name if empty.")
    ] = "",
) -> None:
    """Measure this machine's GPU, fit the models of its operations, and write a profile.

    Samples are appended to a table beside the profile: stop with Ctrl-C, go on later with the same command.
    The most informative points come first, so that a short budget thins all sizes alike.
    """
    if context.invoked_subcommand is not None:
        return
    if output is None:
        raise CalibrationError(
            "-o/--output: name the profile to write, e.g. simllm calibrate -o profile.yaml"
        )
    points, budget_s = make_plan(parse_names(ops), parse_names(backend)), parse_duration(budget)
    check_profile_place(output)
    host = describe_host()
    spec = find_device(device, host)
    samples = samples_beside(output)
    measure_points(points, samples, host=host, budget_s=budget_s)
    fit_profile(samples, output, spec, name=output.stem)


fit = app.command("fit")(fit_command)
links = app.command("links")(links_command)
power = app.command("power")(power_command)
report = app.command("report")(report_command)
plan = app.command("plan")(plan_command)
kernel = app.command("kernel")(kernel_command)
budgets = app.command("budget")(budget_command)
