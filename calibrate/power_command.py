"""`simllm calibrate power`: measures how this GPU meets its power limit, and writes it into a profile."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..hwmodels.power import PowerLimit
from ..hwmodels.profile_file import dump_profile
from ..hwmodels.profile_schema import PowerEntry
from .files import check_writable, write_whole
from .host import describe_host
from .links_command import existing_profile, new_profile
from .measure import INTERRUPTED_EXIT_CODE
from .power_fit import fit_power
from .power_samples import read_power_samples, write_power_samples

SAMPLES_SUFFIX = ".power.samples.parquet"
_SOURCE_FIELDS = ("name", "driver_version", "power_limit", "date")


def power_command(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Profile (YAML) whose power section is written."),
    ],
    fit_only: Annotated[
        bool, typer.Option("--fit-only", help="Fit the samples that are there; needs no GPU.")
    ] = False,
) -> None:
    """Measure how the clock of this host's GPU falls under prefill and comes back, and fit it.

    Takes a few minutes. Only the power section of the profile changes, and it is written whole or not
    at all. The samples lie beside the profile, in PROFILE.power.samples.parquet.
    """
    check_writable(output)
    samples = output.with_name(output.stem + SAMPLES_SUFFIX)
    base = existing_profile(output)
    if not fit_only:
        _measure(samples)
    rows, host = read_power_samples(samples)
    entry = fit_power(rows, source_of(host))
    content = base or new_profile(output.stem, host)
    write_whole(output, dump_profile({**content, "power": entry.model_dump(mode="json")}))
    typer.echo(power_text(entry))


def source_of(host: Mapping[str, str]) -> str:
    """Returns where samples come from in one line: GPU, driver, limit, date."""
    labels = ("", "driver ", "limit ", "")
    known = ((label, host.get(field, "")) for label, field in zip(labels, _SOURCE_FIELDS, strict=True))
    return ", ".join(label + text for label, text in known if text)


def power_text(entry: PowerEntry) -> str:
    """Returns the constants in words, a line each, and their errors."""
    limit, errors = entry.limit(), entry.held_out
    after_pause, after_decodes = (
        f"{half_fallen_s(limit, headroom) * 1e3:.0f} ms"
        for headroom in (limit.idle_headroom, limit.busy_headroom)
    )
    return "\n".join(
        (
            f"matrix work with the clock settled  +{limit.slowdown:.1%}",
            f"other work with the clock settled   +{limit.other_slowdown:.1%}",
            f"clock half fallen under prefill     {after_pause} after a pause, {after_decodes} after decodes",
            f"time constant                       {limit.reaction_s * 1e3:.0f} ms",
            f"error on sequences left out         {errors.step:.1%} of a step, "
            f"{errors.sequence:.1%} of a sequence ({errors.num_sequences} of them)",
        )
    )


def half_fallen_s(limit: PowerLimit, headroom: float) -> float:
    """Returns how long prefill runs until half of its slowdown is there, beginning at `-headroom` [s]."""
    return limit.reaction_s * log((1 + headroom) / 0.5)


def _measure(path: Path) -> None:
    """Raises: CalibrationError, one line, without a GPU; typer.Exit after Ctrl-C."""
    host = describe_host()
    from .power_measure import measure_power

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("capturing", total=None)

        def show(name: str, number: int, total: int) -> None:
            bar.update(task, description=name, completed=number, total=total)

        try:
            samples = measure_power(show)
        except KeyboardInterrupt:
            typer.echo("stopped; nothing was written", err=True)
            raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    write_power_samples(path, samples, host)
    typer.echo(f"{path}: {len(samples)} steps", err=True)
