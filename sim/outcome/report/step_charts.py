"""What the engines did: the tokens of their steps, how long these took, and which work took the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from ....units import MS_PER_S
from .bins import Bins, Floats
from .load_charts import step_ends
from .look import (
    DASHES,
    PART_COLORS,
    TIME,
    Chart,
    color_of,
    defined,
    make_figure,
    make_rows,
    stack,
    values_of,
)
from .run_folder import Run

# Terms of less than this share of the time, in every run, are shown together.
_LEAST_SHARE = 0.005


def step_charts(runs: Sequence[Run], bins: Bins) -> Iterator[Chart]:
    """Yields where time goes by cost term; also over time, and what steps held, where they were recorded."""
    width = f"{bins.width_s:g} s"
    yield Chart("time-by-term", "Where time goes", defined("term_share", "busy_share"), _terms_in_all(runs))
    if any(len(run.summary["replicas"]) > 1 for run in runs):
        yield Chart("busy-by-replica", "Replicas", defined("busy_share"), _replicas(runs))
    stepped = [run for run in runs if run.steps is not None]
    if not stepped:
        return
    yield Chart(
        "time-by-term-over-time",
        "Where time goes, over time",
        f"Time of each cost term in each {width} over that time, over all replicas: how many are "
        "busy with it.",
        _terms_over_time(stepped, bins),
    )
    yield Chart(
        "batch-composition",
        "Tokens of a step",
        f"Mean over the steps that began in each {width} of their prefill tokens, decode tokens (one per "
        "sequence that decodes) and what CUDA graphs padded these with.",
        _composition(stepped, bins),
    )
    yield Chart(
        "step-duration",
        "Duration of a step",
        f"p50 and p99 of the steps that began in each {width}, all replicas.",
        _durations(stepped, bins),
    )
    yield Chart(
        "bound",
        "What bounds the steps",
        "Share of the time with a step running by what its largest part was bound by.",
        _bounds(stepped),
    )


def shown_terms(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Returns the cost terms to show, the largest first, each with the terms that it stands for."""
    shares: dict[str, float] = {}
    for run in runs:
        for term, share in run.summary["term_share"].items():
            shares[term] = max(shares.get(term, 0.0), share or 0.0)
    ordered = sorted(shares, key=lambda term: -shares[term])
    large = [term for term in ordered if shares[term] >= _LEAST_SHARE][: len(PART_COLORS) - 1]
    small = [term for term in ordered if term not in large and shares[term] > 0]
    return {**{term: [term] for term in large}, **({"other": small} if small else {})}


def _terms_in_all(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("share of span_s, mean over replicas", "")
    names = [run.name for run in runs]
    for number, (name, terms) in enumerate(shown_terms(runs).items()):
        shares = [sum(run.summary["term_share"].get(term) or 0.0 for term in terms) for run in runs]
        _bar(figure, name, names, shares, PART_COLORS[number % len(PART_COLORS)])
    idle = [1 - (run.summary["busy_share"] or 0.0) for run in runs]
    _bar(figure, "idle", names, idle, "rgba(128,128,128,0.2)")
    figure.update_layout(barmode="stack")
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _bar(figure: go.Figure, name: str, rows: Sequence[str], shares: Sequence[float], color: str) -> None:
    figure.add_bar(x=list(shares), y=list(rows), name=name, orientation="h", marker={"color": color})


def _replicas(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("replica", "busy share of span_s")
    for number, run in enumerate(runs):
        replicas = run.summary["replicas"]
        labels = [f"{one['pool']} {one['replica']}" for one in replicas]
        shares = [one["busy_share"] for one in replicas]
        figure.add_bar(x=labels, y=shares, name=run.name, marker={"color": color_of(number)})
    figure.update_yaxes(range=[0, 1])
    return figure


def _terms_over_time(runs: Sequence[Run], bins: Bins) -> go.Figure:
    figure = make_rows(runs, TIME, "busy replicas")
    terms = shown_terms(runs)
    for row, run in enumerate(runs, 1):
        assert run.steps is not None
        start, end = _column(run, "started_at"), step_ends(run.steps)
        duration_s = np.where(end > start, end - start, np.inf)
        parts = {}
        for name, own in terms.items():
            seconds = sum(
                (_column(run, f"{term}_ms") for term in own if term in run.terms), np.zeros(len(end))
            )
            parts[name] = bins.level(start, end, seconds / MS_PER_S / duration_s)
        stack(figure, bins.middle, parts, row)
    return figure


def _composition(runs: Sequence[Run], bins: Bins) -> go.Figure:
    figure = make_rows(runs, TIME, "tokens per step")
    for row, run in enumerate(runs, 1):
        start = _column(run, "started_at")
        num_steps = bins.total(start)
        prefill, decode = _column(run, "num_prefill_tokens"), _column(run, "num_decodes")
        padding = np.maximum(_column(run, "num_padded_tokens") - prefill - decode, 0)
        kinds = {"prefill": prefill, "decode": decode, "padding": padding}
        parts = {name: bins.ratio(bins.total(start, kind), num_steps) for name, kind in kinds.items()}
        stack(figure, bins.middle, parts, row)
    return figure


def _durations(runs: Sequence[Run], bins: Bins) -> go.Figure:
    figure = make_figure(TIME, "step duration [ms]")
    for number, run in enumerate(runs):
        start, duration_ms = _column(run, "started_at"), _column(run, "duration_ms")
        for dash, percent in zip(DASHES, (50, 99), strict=False):
            figure.add_scatter(
                x=bins.middle,
                y=values_of(bins.percentile(start, duration_ms, percent)),
                name=f"{run.name} p{percent}",
                mode="lines",
                line={"color": color_of(number), "dash": dash},
            )
    figure.update_yaxes(rangemode="tozero")
    return figure


def _bounds(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("", "share of busy time")
    for number, run in enumerate(runs):
        assert run.steps is not None
        times = run.steps.groupby("bound", observed=True)["duration_ms"].sum()
        shares = times / max(times.sum(), np.finfo(float).tiny)
        figure.add_bar(
            x=[str(name) for name in shares.index],
            y=shares.tolist(),
            name=run.name,
            marker={"color": color_of(number)},
        )
    figure.update_yaxes(range=[0, 1])
    return figure


def _column(run: Run, name: str) -> Floats:
    assert run.steps is not None
    return run.steps[name].to_numpy(np.float64)
