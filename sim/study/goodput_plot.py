"""The plot of a search for goodput: shares of good requests and latencies over the request rate."""

from __future__ import annotations

from typing import Any

from ..outcome.page import COLORS, figure_html, html_page
from .goodput_result import Goodput

FILE_NAME = "goodput.html"


def goodput_html(result: Goodput) -> str:
    """Returns a page that shows where and why the objective is lost."""
    from plotly.subplots import make_subplots

    titles = ["share of good requests, needed share dashed", "latency [ms], limit dashed"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles)
    for number, (criterion, needed) in enumerate(result.objective.needed.items()):
        color = COLORS[number % len(COLORS)]
        figure.add_scatter(**_shares(result, criterion, color), row=1, col=1)
        figure.add_hline(y=needed, line={"color": color, "dash": "dash"}, row=1, col=1)
    for number, term in enumerate(result.objective.terms):
        color = COLORS[number % len(COLORS)]
        curve = result.curve
        style = {"mode": "lines+markers", "line": {"color": color}, "name": f"{term.name} [ms]"}
        figure.add_scatter(x=curve["request_rate"], y=curve[f"{term.name}_ms"], **style, row=1, col=2)
        figure.add_hline(y=term.limit_ms, line={"color": color, "dash": "dash"}, row=1, col=2)
    if result.request_rate:
        figure.add_vline(x=result.request_rate, line={"color": "#777777"})
    figure.update_xaxes(type="log", title_text="request rate [req/s]")
    figure.update_yaxes(type="log", col=2)
    figure.update_layout(height=480, margin={"t": 40, "b": 40})
    return html_page(f"{result.scenario_name}: goodput", _heading(result), [figure_html(figure)])


def _shares(result: Goodput, criterion: str, color: str) -> dict[str, Any]:
    curve = result.curve
    share, low, high = (curve[f"{criterion}_share{end}"] for end in ("", "_low", "_high"))
    error = {"type": "data", "array": high - share, "arrayminus": share - low, "color": color}
    return {
        "x": curve["request_rate"],
        "y": share,
        "error_y": error,
        "mode": "lines+markers",
        "line": {"color": color},
        "name": criterion,
    }


def _heading(result: Goodput) -> str:
    return f"{result.scenario_name}: {result.request_rate:g} req/s within the SLO"
