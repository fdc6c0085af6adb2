"""Each chart as a picture for a paper: PNG or SVG, drawn by kaleido with a Chrome of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import plotly.graph_objects as go
import plotly.io

from ....errors import SimllmError
from .look import Chart

ImageFormat = Literal["png", "svg"]
_WIDTH, _SCALE = 800, 2


def check_images(directory: Path) -> None:
    """Checks that pictures can be written into a folder.

    Raises: SimllmError if `directory` is a file or kaleido is not installed.
    """
    if directory.exists() and not directory.is_dir():
        raise SimllmError(f"{directory}: is a file; the pictures need a folder")
    if find_spec("kaleido") is None:
        raise SimllmError("pictures need kaleido: pip install 'simllm[images]'")


def write_images(charts: Sequence[Chart], directory: Path, form: ImageFormat) -> list[Path]:
    """Writes every chart into a folder, made if need be, as `<key>.<form>`; all of them or none.

    Raises: SimllmError if kaleido or its Chrome is missing, or the folder cannot be written.
    """
    check_images(directory)
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".images-", dir=directory) as scratch:
            drawn = [Path(scratch) / f"{chart.key}.{form}" for chart in charts]
            _draw(charts, drawn, form)
            return [path.replace(directory / path.name) for path in drawn]
    except OSError as error:
        raise SimllmError(f"{directory}: cannot be written: {error.strerror or error}") from error
    finally:
        if is_new and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _draw(charts: Sequence[Chart], paths: Sequence[Path], form: ImageFormat) -> None:
    figures = [_titled(chart) for chart in charts]
    heights = [figure.layout.height for figure in figures]
    try:
        plotly.io.write_images(
            figures, [str(path) for path in paths], format=form, width=_WIDTH, height=heights, scale=_SCALE
        )
    except (RuntimeError, ValueError) as error:
        # Kaleido's errors are of these kinds: no Chrome, or one that does not start.
        first_line = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise SimllmError(f"pictures cannot be drawn: {first_line}") from error


def _titled(chart: Chart) -> go.Figure:
    """Returns the figure with the title that the page has in its text."""
    figure = go.Figure(chart.figure)
    margin = figure.layout.margin.t + 30
    figure.update_layout(title={"text": chart.title, "font": {"size": 16}}, margin={"t": margin})
    return figure
