"""The command `simllm report`: a page, pictures or a trace of finished runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .errors import SimllmError
from .sim.outcome.files import write_text_whole
from .sim.outcome.page import check_plotly


class ImageFormat(StrEnum):
    """Files of `--images`."""

    PNG = "png"
    SVG = "svg"


def report_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders that `simllm run -o` wrote.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The page to write (HTML).")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each chart as a picture there (simllm[images]).")
    ] = None,
    image_format: Annotated[ImageFormat, typer.Option("--format", help="Of the pictures.")] = ImageFormat.PNG,
    perfetto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one run as a trace (JSON) for ui.perfetto.dev."),
    ] = None,
) -> None:
    """Tell what runs did: one HTML page that works offline; two or more runs side by side.

    The first run is the one that the others are compared with. Intervals are those of a bootstrap over
    stretches of requests.
    """
    if output is None and images is None and perfetto is None:
        raise SimllmError("nothing to write: give -o FILE, --images DIR or --perfetto FILE")
    if perfetto is not None and len(folders) > 1:
        raise SimllmError(f"--perfetto writes one run, not {len(folders)}")
    if output is not None or images is not None:
        check_plotly()
        _draw(folders, output, images, image_format)
    if perfetto is not None:
        _trace(folders[0], perfetto)


def _draw(folders: list[Path], output: Path | None, images: Path | None, form: ImageFormat) -> None:
    # Drawing loads plotly, which is an extra, and pandas.
    from .sim.outcome.report.document import report_charts, report_html
    from .sim.outcome.report.images import check_images, write_images
    from .sim.outcome.report.run_folder import read_runs

    if images is not None:
        check_images(images)
    runs = read_runs(folders)
    if output is not None:
        write_text_whole(output, report_html(runs))
        typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB", err=True)
    if images is not None:
        drawn = write_images(report_charts(runs), images, form.value)
        typer.echo(f"{images}: {len(drawn)} pictures", err=True)


def _trace(folder: Path, path: Path) -> None:
    from .sim.outcome.report.perfetto import write_trace
    from .sim.outcome.report.run_folder import run_files

    num_events = write_trace(run_files(folder), path)
    typer.echo(f"{path}: {num_events:,} events; open it in ui.perfetto.dev", err=True)
