"""How charts look: colours, axes, and the text that every chart carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from ..definitions import DEFINITIONS
from ..page import COLORS
from .run_folder import Run

TIME = "simulated time [s]"
DASHES = ("solid", "dot", "dash", "dashdot")
# For stacks of many parts; the colour-blind can tell them apart too.
# Source: CARTO, "CARTOColors", scheme Safe.
PART_COLORS = tuple(qualitative.Safe)
_HEIGHT, _ROW_HEIGHT = 370, 230


class Chart(NamedTuple):
    """A chart with what it shows. key: its name in files and links. definition: of its figures."""

    key: str
    title: str
    definition: str
    figure: go.Figure


def defined(*keys: str, note: str = "") -> str:
    """Returns the definitions of these figures as sentences, and a note behind them."""
    parts = [f"{key}: {DEFINITIONS[key]}." for key in keys]
    return " ".join([*parts, *filter(None, [note])])


def color_of(number: int) -> str:
    """Returns the colour of a run, or of another series, by its number."""
    return COLORS[number % len(COLORS)]


def make_figure(x: str, y: str) -> go.Figure:
    """Returns an empty figure with its axes' titles."""
    figure = go.Figure()
    _dress(figure, _HEIGHT)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return figure


def make_rows(runs: Sequence[Run], x: str, y: str) -> go.Figure:
    """Returns an empty figure with a row for each run, all over the same x axis."""
    names = [run.name for run in runs] if len(runs) > 1 else None
    figure = make_subplots(
        rows=len(runs), cols=1, shared_xaxes=True, subplot_titles=names, vertical_spacing=0.25 / len(runs)
    )
    _dress(figure, _HEIGHT + _ROW_HEIGHT * (len(runs) - 1))
    figure.update_xaxes(title_text=x, row=len(runs))
    figure.update_yaxes(title_text=y)
    return figure


def values_of(numbers: NDArray[np.float64]) -> list[float | None]:
    """Returns numbers as a figure holds them: nan is a gap."""
    return [None if np.isnan(number) else float(number) for number in numbers]


def stack(figure: go.Figure, x: Sequence[float], parts: dict[str, NDArray[np.float64]], row: int) -> None:
    """Adds areas on top of each other to a row of a figure; a part has the same colour in every row."""
    for number, (name, heights) in enumerate(parts.items()):
        figure.add_scatter(
            x=x,
            y=values_of(np.nan_to_num(heights)),
            name=name,
            legendgroup=name,
            showlegend=row == 1,
            stackgroup="parts",
            mode="lines",
            line={"width": 0.5, "color": PART_COLORS[number % len(PART_COLORS)]},
            row=row,
            col=1,
        )


def _dress(figure: go.Figure, height: int) -> None:
    # A finger that drags over a chart scrolls the page: zooming is a button of its own.
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 15, "t": 30, "b": 50},
        legend={"orientation": "h", "y": -0.22 * _HEIGHT / height, "yanchor": "top", "traceorder": "normal"},
        dragmode=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#999", "activecolor": "#0072B2"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
