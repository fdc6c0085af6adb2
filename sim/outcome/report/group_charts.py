"""Requests by kind: turns of a conversation, tenants, priorities and models, each beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import plotly.graph_objects as go

from .look import Chart, color_of, make_figure
from .run_folder import Run

# Columns of the requests table by which users tell requests apart, and what to call them.
_GROUPS = {"turn": "turn", "tenant": "tenant", "priority": "priority", "model": "model", "adapter": "adapter"}
# More bars than this cannot be read on a phone.
_MAX_GROUPS = 16
_LATENCIES = ("ttft", "tpot", "e2el")


def group_charts(runs: Sequence[Run]) -> Iterator[Chart]:
    """Yields latencies and cache hits by each kind of which some run has two or more."""
    for column, name in _GROUPS.items():
        grouped = [_grouped(_named(run), column) for run in runs]
        if max(map(len, grouped)) < 2:
            continue
        groups = f"Completed requests by {name}; the last group holds all from there on if it ends in '+'."
        for metric in _LATENCIES:
            figure = _latency(runs, grouped, metric, name)
            title = f"{metric.upper()} by {name}"
            yield Chart(f"{metric}-by-{column}", title, f"Median, and p99 as the whisker. {groups}", figure)
        figure = _hit_rate(runs, grouped, name)
        text = f"cached_tokens / prompt_tokens. {groups}"
        yield Chart(f"hits-by-{column}", f"Prompt tokens from cache, by {name}", text, figure)


def _named(run: Run) -> pd.DataFrame:
    """Returns the completed requests, with the names of their tenants if the run has some."""
    names = [tenant["tenant"] for tenant in run.summary.get("tenants", ())]
    if not names:
        return run.completed
    # As at the gate: who is beyond the list counts as the last.
    numbers = run.completed["tenant"].clip(upper=len(names) - 1)
    return run.completed.assign(tenant=numbers.map(dict(enumerate(names))))


def _grouped(requests: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Returns the requests of each group in order; numbers behind the last one shown join it."""
    if column not in requests or requests[column].isna().all():
        return {}
    keys = requests[column]
    if not pd.api.types.is_numeric_dtype(keys):
        largest = keys.value_counts().index[:_MAX_GROUPS]
        return {str(key): requests[keys == key] for key in sorted(largest) if (keys == key).any()}
    values = sorted(keys.dropna().unique())
    shown, rest = values[: _MAX_GROUPS - 1], values[_MAX_GROUPS - 1 :]
    groups = {f"{value:g}": requests[keys == value] for value in shown}
    if rest:
        label = f"{rest[0]:g}" if len(rest) == 1 else f"{rest[0]:g}+"
        groups[label] = requests[keys >= rest[0]]
    return groups


def _latency(
    runs: Sequence[Run], grouped: Sequence[dict[str, pd.DataFrame]], metric: str, name: str
) -> go.Figure:
    figure = make_figure(name, f"{metric.upper()} [ms]")
    for number, (run, groups) in enumerate(zip(runs, grouped, strict=True)):
        spread = [
            (group[f"{metric}_ms"].median(), group[f"{metric}_ms"].quantile(0.99))
            for group in groups.values()
        ]
        known = [(label, *pair) for label, pair in zip(groups, spread, strict=True) if pair[0] == pair[0]]
        reach = [p99 - median for _, median, p99 in known]
        figure.add_bar(
            x=[label for label, _, _ in known],
            y=[median for _, median, _ in known],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": reach,
                "arrayminus": [0.0] * len(reach),
                "color": "#888",
            },
            name=run.name,
            marker={"color": color_of(number)},
        )
    figure.update_xaxes(type="category")
    return figure


def _hit_rate(runs: Sequence[Run], grouped: Sequence[dict[str, pd.DataFrame]], name: str) -> go.Figure:
    figure = make_figure(name, "share of prompt tokens")
    for number, (run, groups) in enumerate(zip(runs, grouped, strict=True)):
        shares = [
            float(group["cached_tokens"].sum() / max(group["prompt_tokens"].sum(), 1))
            for group in groups.values()
        ]
        figure.add_bar(x=list(groups), y=shares, name=run.name, marker={"color": color_of(number)})
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 1])
    return figure
