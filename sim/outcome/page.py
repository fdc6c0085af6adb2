"""Self-contained HTML pages of plots: plotly's script is in them, nothing is fetched.

Pages follow the reader's light or dark mode and the width of the screen; plots do so by style sheet alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import SimllmError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# More points than pixels only make a file large.
MAX_POINTS = 1500
# Okabe and Ito's palette, which the colour-blind can tell apart; grey for its black, to be seen in dark mode.
# Source: M. Okabe, K. Ito, "Color Universal Design", 2008.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A", "#F0E442")
_STYLE = """
:root { color-scheme: light dark; --text: #222; --soft: #666; --line: #ddd; --ground: #fff; --card: #f7f7f7; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --soft: #999; --line: #444; --ground: #161618; --card: #1f1f22; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--ground);
  max-width: 1250px; margin: 0 auto; padding: 0 1em 3em; }
.js-plotly-plot .main-svg, .js-plotly-plot .bg, .js-plotly-plot rect.bglayer {
  background: transparent !important; fill-opacity: 0 !important; }
.js-plotly-plot text { fill: var(--text) !important; }
.js-plotly-plot .hoverlayer text { fill: #fff !important; }
.js-plotly-plot .hoverlayer .axistext path { fill: #555 !important; }
.js-plotly-plot .gridlayer path { stroke: var(--line) !important; }
.js-plotly-plot .zerolinelayer path { stroke: var(--soft) !important; }
"""


def check_plotly() -> None:
    """Checks that plots can be drawn. Raises: SimllmError if plotly is not installed."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise SimllmError("plots need plotly: pip install 'simllm[report]'") from None


def check_plots(directory: Path) -> None:
    """Checks that plots can be written into a folder; worth doing before simulating.

    Raises: SimllmError if `directory` is a file or plotly is not installed.
    """
    if directory.exists() and not directory.is_dir():
        raise SimllmError(f"{directory}: is a file; the plots need a folder")
    check_plotly()


def html_page(title: str, heading: str, parts: Sequence[str], style: str = "") -> str:
    """Returns a page with these parts, HTML each. style: rules of its own, behind those of all pages."""
    from plotly.offline import get_plotlyjs

    return "\n".join(
        (
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<script>{get_plotlyjs()}</script>",
            f"<style>{_STYLE}{style}</style>",
            f"</head><body><h1>{escape(heading)}</h1>",
            *parts,
            "</body></html>\n",
        )
    )


def figure_html(figure: Figure, name: str | None = None) -> str:
    """Returns a figure as a part of a page, as wide as its place. name: its id, drawn by lot without one."""
    config = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config)
    return text


def cdf_points(values: NDArray[np.float64]) -> dict[str, list[float]]:
    """Returns x and y of a cumulative distribution, thinned out evenly; nan is left out."""
    known = np.sort(values[~np.isnan(values)])
    shares = np.arange(1, len(known) + 1) / max(len(known), 1)
    places = thinned(len(known))
    return {"x": known[places].tolist(), "y": shares[places].tolist()}


def thinned(num_points: int) -> list[int]:
    """Returns at most `MAX_POINTS` places out of so many, first and last included."""
    chosen = np.unique(np.linspace(0, num_points - 1, min(num_points, MAX_POINTS)).round().astype(np.int64))
    places: list[int] = chosen.tolist()
    return places
