"""The service level objective: how many requests keep it, when, and which limit the others break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go

from ....units import MS_PER_S
from .bins import Bins, Floats
from .look import TIME, Chart, color_of, make_figure, values_of
from .run_folder import Run


def objective_charts(runs: Sequence[Run], bins: Bins) -> Iterator[Chart]:
    """Yields SLO attainment over time and by limit; nothing where no run has an objective."""
    held = [(number, run) for number, run in enumerate(runs) if run.slo.limits_s]
    if not held:
        return
    limits = "; ".join(
        f"{run.name}: "
        + ", ".join(f"{metric} <= {limit * MS_PER_S:g} ms" for metric, limit in run.slo.limits_s.items())
        for _, run in held
    )
    text = "Share of completed and rejected requests that completed within every limit of `slo`"
    yield Chart(
        "slo-over-time",
        "SLO attainment over time",
        f"{text}, of those that arrived in each {bins.width_s:g} s. {limits}.",
        _over_time(held, bins),
    )
    yield Chart(
        "slo-by-limit",
        "SLO attainment by limit",
        f"{text} (all), or within one of them. {limits}.",
        _by_limit(held),
    )


def attainment(run: Run) -> dict[str, float | None]:
    """Returns the share of decided requests within each limit, and within `all`; None without requests."""
    decided = run.requests[run.requests["slo_met"].notna()]
    if not len(decided):
        return dict.fromkeys([*run.slo.limits_s, "all"])
    shares: dict[str, float | None] = {}
    for metric, limit_s in run.slo.limits_s.items():
        is_kept = _values_ms(run, metric) <= limit_s * MS_PER_S
        shares[metric] = float(is_kept.sum()) / len(decided)
    return {**shares, "all": float(decided["slo_met"].astype(bool).mean())}


def _values_ms(run: Run, metric: str) -> Floats:
    """Returns a metric of the completed requests [ms]; a one-token answer has a TPOT of 0 here."""
    values = run.completed[f"{metric}_ms"].to_numpy(np.float64)
    return np.nan_to_num(values) if metric == "tpot" else values


def _over_time(held: Sequence[tuple[int, Run]], bins: Bins) -> go.Figure:
    figure = make_figure(TIME, "share of requests")
    for number, run in held:
        decided = run.requests[run.requests["slo_met"].notna()]
        arrived_at = decided["arrived_at"].to_numpy(np.float64)
        num_met = bins.total(arrived_at, decided["slo_met"].to_numpy(np.float64))
        figure.add_scatter(
            x=bins.middle,
            y=values_of(bins.ratio(num_met, bins.total(arrived_at))),
            name=run.name,
            mode="lines+markers",
            marker={"size": 3},
            line={"color": color_of(number)},
        )
    figure.update_yaxes(range=[0, 1.02])
    return figure


def _by_limit(held: Sequence[tuple[int, Run]]) -> go.Figure:
    figure = make_figure("", "share of requests")
    for number, run in held:
        shares = attainment(run)
        labels = [metric if metric == "all" else metric.upper() for metric in shares]
        figure.add_bar(x=labels, y=list(shares.values()), name=run.name, marker={"color": color_of(number)})
    figure.update_yaxes(range=[0, 1])
    return figure
