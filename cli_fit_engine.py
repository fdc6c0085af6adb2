"""The command `simllm fit-engine`: recorded runs of a real engine in, the constants of its version out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from .errors import ProfileError, TraceError
from .hwmodels.engine_profile import EngineProfile
from .hwmodels.profile import load_profile
from .sim.outcome.files import write_text_whole


def fit_engine_command(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.json[.gz]...", help="Results with an `engine` block; their steps lie beside them."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Engine profile to write.")],
    name: Annotated[str, typer.Option(help="Name of the engine profile.")],
    profile: Annotated[str, typer.Option(help="The calibrated hardware profile to fit on.")] = "h200-sxm",
) -> None:
    """Fit what an engine adds to its kernels to recorded steps: one set of constants for all runs.

    Takes minutes. The file says how each run's busy time comes out.
    """
    # Fitting loads what no other command needs, so only this one pays for it.
    from .sim.validate.engine_fit import fit_engine
    from .sim.validate.engine_runs import engine_run

    hardware = load_profile(profile)
    if hardware.kind != "calibrated":
        raise ProfileError(f"{profile}: is no calibrated profile, which a fit of what comes on top needs")
    runs, engines = zip(*(engine_run(path, hardware) for path in results), strict=True)
    versions = sorted({(engine.name, engine.version) for engine in engines})
    if len(versions) > 1:
        raise TraceError(results[0], None, f"the runs are of several engines: {versions}")
    fit = fit_engine(runs)
    fitted = EngineProfile(
        schema_version=1,
        kind="fitted",
        name=name,
        engine=versions[0][0],
        version=versions[0][1],
        device=hardware.device.name,
        profile=hardware.name,
        constants=fit.constants,
        runs=fit.runs,
    )
    text = yaml.safe_dump(fitted.model_dump(mode="json"), sort_keys=False, width=110, default_flow_style=None)
    write_text_whole(output, text)
    for constant, found in fit.constants.items():
        typer.echo(f"{constant:20} {found.value:<10.4g} [{found.low:.4g}, {found.high:.4g}]")
    for run in fit.runs:
        typer.echo(f"{run.run:45} {run.num_steps:6d} steps  busy time {run.busy_error:+.1%}")
