"""The plot of a comparison: distributions of latencies, one line per scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from ..outcome.page import COLORS, cdf_points, figure_html, html_page
from .compare import LATENCIES, Compared

FILE_NAME = "comparison.html"


def comparison_html(title: str, runs: Sequence[Compared]) -> str:
    """Returns a page that shows how the schedulers' latencies are distributed."""
    from plotly.subplots import make_subplots

    titles = [f"{metric.upper()} [ms]" for metric in LATENCIES]
    figure = make_subplots(rows=1, cols=len(LATENCIES), subplot_titles=titles)
    for number, run in enumerate(runs):
        line = {"color": COLORS[number % len(COLORS)], "shape": "hv"}
        for column, metric in enumerate(LATENCIES, 1):
            figure.add_scatter(
                **cdf_points(run.latencies_ms[metric]),
                name=run.name,
                legendgroup=run.name,
                showlegend=column == 1,
                line=line,
                mode="lines",
                row=1,
                col=column,
            )
    figure.update_xaxes(type="log")
    figure.update_yaxes(title_text="share of requests", range=[0, 1], col=1)
    figure.update_layout(height=460, margin={"t": 40, "b": 40})
    return html_page(f"{title}: schedulers compared", title, [figure_html(figure)])
