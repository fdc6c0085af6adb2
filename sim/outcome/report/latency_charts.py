"""How long requests took: distributions, and percentiles in the course of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from ..page import cdf_points
from .bins import Bins
from .look import DASHES, TIME, Chart, color_of, defined, make_figure, values_of
from .run_folder import Run

METRICS = ("ttft", "ttfo", "tpot", "e2el", "queue")
_MARKED = (50, 90, 95, 99)
_OVER_TIME = (50, 99)


def latency_charts(runs: Sequence[Run], bins: Bins) -> Iterator[Chart]:
    """Yields a distribution and a course over time of every metric; of TTFO only where requests reason."""
    for metric in METRICS:
        if metric == "ttfo" and not any(_reasons(run) for run in runs):
            continue
        title = metric.upper() if metric != "queue" else "Time in the queue"
        yield Chart(
            f"{metric}-distribution",
            f"{title}: distribution",
            defined(f"{metric}_ms", note="Completed requests. Dots: the summary's p50, p90, p95 and p99."),
            _distribution(runs, metric),
        )
        yield Chart(
            f"{metric}-over-time",
            f"{title} over time",
            defined(note=f"p50 and p99 of the completed requests that arrived in each {bins.width_s:g} s."),
            _over_time(runs, metric, bins),
        )


def _reasons(run: Run) -> bool:
    return bool((run.completed["reasoning_tokens"] > 0).any())


def _distribution(runs: Sequence[Run], metric: str) -> go.Figure:
    figure = make_figure(f"{metric.upper() if metric != 'queue' else 'queue'} [ms]", "share of requests")
    lowest = _lowest(runs, metric)
    for number, run in enumerate(runs):
        color = color_of(number)
        values = run.completed[f"{metric}_ms"].to_numpy(np.float64)
        points = cdf_points(np.maximum(values, lowest))
        figure.add_scatter(**points, name=run.name, mode="lines", line={"color": color, "shape": "hv"})
        marked = [run.summary[f"p{percent}_{metric}_ms"] for percent in _MARKED]
        if None not in marked:
            figure.add_scatter(
                x=np.maximum(marked, lowest).tolist(),
                y=[percent / 100 for percent in _MARKED],
                text=[f"p{percent}" for percent in _MARKED],
                name=f"{run.name}: summary",
                mode="markers",
                marker={"color": color, "size": 8},
                showlegend=False,
            )
    figure.update_xaxes(type="log")
    figure.update_yaxes(range=[0, 1.02])
    return figure


def _lowest(runs: Sequence[Run], metric: str) -> float:
    """Returns the least value above 0 [ms], where zeros are drawn: a log axis has no place for them."""
    values = [run.completed[f"{metric}_ms"] for run in runs]
    least = [above.min() for value in values if len(above := value[value > 0])]
    return float(min(least, default=1.0))


def _over_time(runs: Sequence[Run], metric: str, bins: Bins) -> go.Figure:
    figure = make_figure(TIME, f"{metric.upper() if metric != 'queue' else 'queue'} [ms]")
    for number, run in enumerate(runs):
        arrived_at = run.completed["arrived_at"].to_numpy(np.float64)
        values = run.completed[f"{metric}_ms"].to_numpy(np.float64)
        for percent, dash in zip(_OVER_TIME, DASHES, strict=False):
            figure.add_scatter(
                x=bins.middle,
                y=values_of(bins.percentile(arrived_at, values, percent)),
                name=f"{run.name} p{percent}",
                mode="lines+markers",
                marker={"size": 3},
                line={"color": color_of(number), "dash": dash},
            )
    figure.update_yaxes(rangemode="tozero")
    return figure
