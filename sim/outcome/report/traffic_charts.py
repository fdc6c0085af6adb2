"""What tiers under HBM gave, and what the links between them carried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from .look import Chart, color_of, defined, make_figure
from .run_folder import Run

_GIB = 2**30


def traffic_charts(runs: Sequence[Run]) -> Iterator[Chart]:
    """Yields hits and bytes by tier, and the use of links; nothing without tiers."""
    if any(run.summary["kv_tiers"] for run in runs):
        text = defined("kv_tiers")
        figure = _by_tier(runs, ("hit_tokens", "recomputed_tokens", "prefetched_tokens"), "tokens", 1)
        yield Chart("tier-tokens", "Prompt tokens by tier", text, figure)
        figure = _by_tier(runs, ("read_bytes", "written_bytes"), "GiB", _GIB)
        yield Chart("tier-bytes", "Bytes by tier", text, figure)
    if any(run.summary["links"] for run in runs):
        yield Chart("links", "Links", defined("links"), _links(runs))


def _by_tier(runs: Sequence[Run], fields: Sequence[str], unit: str, scale: float) -> go.Figure:
    figure = make_figure("", unit)
    for number, run in enumerate(runs):
        sums: dict[str, float] = {}
        for tier in run.summary["kv_tiers"]:
            for field in fields:
                label = f"{tier['tier']} {field.split('_')[0]}"
                sums[label] = sums.get(label, 0) + tier[field] / scale
        figure.add_bar(x=list(sums), y=list(sums.values()), name=run.name, marker={"color": color_of(number)})
    return figure


def _links(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("share of what the link can carry in span_s", "")
    for number, run in enumerate(runs):
        links = run.summary["links"]
        figure.add_bar(
            x=[link["utilisation"] for link in links],
            y=[link["link"] for link in links],
            name=run.name,
            orientation="h",
            marker={"color": color_of(number)},
        )
    longest = max(len(run.summary["links"]) for run in runs)
    figure.update_layout(height=max(figure.layout.height, 130 + 28 * longest * len(runs)))
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure
