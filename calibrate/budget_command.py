"""`simllm calibrate budget`: the table of what a shorter budget costs, made from a full set of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hwmodels.device import load_device
from .budget import budget_rows, table_text
from .files import check_writable, write_whole
from .samples import read_samples


def budget_command(
    samples: Annotated[Path, typer.Argument(help="Samples of a whole plan, in its order.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the table there as CSV.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Device that was measured.")] = "h200-sxm",
) -> None:
    """Show what a shorter budget costs: errors of fits to the first points of the plan, on unseen ones."""
    if output is not None:
        check_writable(output)
    rows, _ = read_samples(samples)
    table = budget_rows(rows, load_device(device))
    typer.echo("share   points  minutes   fits  median    p90   whole: median    p90")
    for row in table:
        size = f"{row.share:5.0%} {row.num_points:8d} {row.measuring_s / 60:8.1f} {row.num_fits:6d}"
        whole = f"{row.whole_median:15.1%} {row.whole_p90:6.1%}"
        typer.echo(f"{size} {row.median:7.1%} {row.p90:6.1%} {whole}")
    if output is not None:
        write_whole(output, table_text(table))
