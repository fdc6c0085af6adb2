"""What came in, what went out and what stood between: throughput, requests in the system, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ....units import MS_PER_S
from ..page import cdf_points
from .bins import Bins, Floats
from .look import DASHES, TIME, Chart, color_of, make_figure, values_of
from .run_folder import Run

Curves = dict[str, Floats]


def load_charts(runs: Sequence[Run], bins: Bins) -> Iterator[Chart]:
    """Yields throughput of requests and tokens, requests in the system, the engines' queues, lengths."""
    width = f"{bins.width_s:g} s"
    yield Chart(
        "request-rate",
        "Requests in and out",
        f"Requests that arrived and that got their last token in each {width}, divided by it.",
        _curves(runs, bins, "requests per second", [_request_rates(run, bins) for run in runs]),
    )
    yield Chart(
        "token-rate",
        "Tokens in and out",
        f"In each {width}: prompt tokens of the requests that arrived, and output tokens at the ends of the "
        "steps that made them (without step rows: when their request finished), divided by it.",
        _curves(runs, bins, "tokens per second", [_token_rates(run, bins) for run in runs]),
    )
    yield Chart(
        "requests-in-system",
        "Requests in the system",
        f"Mean over {width} of the requests that have arrived and have not finished; of those, waiting: not "
        "yet scheduled for the first time. Rejected and unfinished requests are left out.",
        _curves(runs, bins, "requests", [_in_system(run, bins) for run in runs]),
    )
    if any(run.steps is not None for run in runs):
        yield Chart(
            "running-waiting",
            "Running and waiting in the engines",
            f"Requests that each step found running and waiting (preempted ones wait), mean over {width} "
            "of the sum over replicas; nothing counts while a replica is idle.",
            _curves(runs, bins, "requests", [_engine_queues(run, bins) for run in runs]),
        )
    yield Chart(
        "lengths",
        "Lengths of prompts and answers",
        "Distribution over all requests of prompt_tokens (image tokens included) and of output_tokens "
        "(reasoning included) of those that completed.",
        _lengths(runs),
    )


def _curves(runs: Sequence[Run], bins: Bins, unit: str, curves: Sequence[Curves]) -> go.Figure:
    figure = make_figure(TIME, unit)
    for number, (run, own) in enumerate(zip(runs, curves, strict=True)):
        for dash, (name, heights) in zip(DASHES, own.items(), strict=False):
            figure.add_scatter(
                x=bins.middle,
                y=values_of(heights),
                name=f"{run.name}: {name}",
                mode="lines",
                line={"color": color_of(number), "dash": dash},
            )
    figure.update_yaxes(rangemode="tozero")
    return figure


def _request_rates(run: Run, bins: Bins) -> Curves:
    arrived_at = run.requests["arrived_at"].dropna().to_numpy(np.float64)
    finished_at = run.completed["finished_at"].to_numpy(np.float64)
    return {
        "finished": bins.total(finished_at) / bins.width_s,
        "arrived": bins.total(arrived_at) / bins.width_s,
    }


def _token_rates(run: Run, bins: Bins) -> Curves:
    arrived = run.requests[run.requests["arrived_at"].notna()]
    prompts = bins.total(_column(arrived, "arrived_at"), _column(arrived, "prompt_tokens"))
    if run.steps is None:
        outputs = bins.total(_column(run.completed, "finished_at"), _column(run.completed, "output_tokens"))
    else:
        outputs = bins.total(step_ends(run.steps), _column(run.steps, "num_sampled"))
    return {"output": outputs / bins.width_s, "prompt": prompts / bins.width_s}


def _in_system(run: Run, bins: Bins) -> Curves:
    done = run.completed
    arrived_at = _column(done, "arrived_at")
    return {
        "in the system": bins.level(arrived_at, _column(done, "finished_at")),
        "waiting": bins.level(arrived_at, _column(done, "scheduled_at")),
    }


def _engine_queues(run: Run, bins: Bins) -> Curves:
    if run.steps is None:
        return {}
    start, end = _column(run.steps, "started_at"), step_ends(run.steps)
    return {
        name: bins.level(start, end, _column(run.steps, f"num_{name}")) for name in ("running", "waiting")
    }


def _lengths(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("tokens", "share of requests")
    for number, run in enumerate(runs):
        columns = {"prompt": run.requests["prompt_tokens"], "answer": run.completed["output_tokens"]}
        for dash, (name, column) in zip(DASHES, columns.items(), strict=False):
            line = {"color": color_of(number), "dash": dash, "shape": "hv"}
            points = cdf_points(np.maximum(column.to_numpy(np.float64), 1.0))
            figure.add_scatter(**points, name=f"{run.name}: {name}", mode="lines", line=line)
    figure.update_xaxes(type="log")
    figure.update_yaxes(range=[0, 1.02])
    return figure


def step_ends(steps: pd.DataFrame) -> Floats:
    """Returns the instants at which steps ended [s]."""
    return _column(steps, "started_at") + _column(steps, "duration_ms") / MS_PER_S


def _column(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(np.float64)
