"""The command `simllm fit-engine`: recorded runs of a real engine in, the constants of its version out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .errors import ProfileError
from .hwmodels.engine_profile import EngineProfile, dump_engine_profile
from .hwmodels.fitted import EngineConstant
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
    """Fit what an engine adds to its kernels, and its front end, to recorded runs: the same for all of them.

    Takes minutes. The file says how each run comes out.
    """
    # Fitting loads what no other command needs, so only this one pays for it.
    from .sim.validate.fit_profile import fit_profile

    hardware = load_profile(profile)
    if hardware.kind != "calibrated":
        raise ProfileError(f"{profile}: is no calibrated profile, which a fit of what comes on top needs")
    fitted, left_out = fit_profile(results, hardware, name)
    write_text_whole(output, dump_engine_profile(fitted))
    for line in report(fitted):
        typer.echo(line)
    for reason in left_out:
        typer.echo(f"not in the front end's fit: {reason}", err=True)


def report(fitted: EngineProfile) -> Iterator[str]:
    """Yields what was found, a line per constant and run."""
    for name, constant in fitted.constants.items():
        yield f"{name:20} {_told(constant)}"
    for run in fitted.runs:
        yield f"{run.run:45} {run.num_steps:6d} steps  busy time {run.busy_error:+.1%}"
    if fitted.front_end is not None:
        for name, found in fitted.front_end.constants.items().items():
            yield f"front end {name:20} {_told(found)} of {found.num_observations}"


def _told(constant: EngineConstant) -> str:
    return f"{constant.value:<10.4g} [{constant.low:.4g}, {constant.high:.4g}]"
