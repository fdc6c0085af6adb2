"""KV memory: how full each tier is, what is in it, what the prefix cache finds, who loses its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .bins import Bins, Floats
from .look import DASHES, PART_COLORS, TIME, Chart, color_of, defined, make_figure, values_of
from .run_folder import Run

_WASTE = ("useful", "reserved", "internal", "external")


def memory_charts(runs: Sequence[Run], bins: Bins) -> Iterator[Chart]:
    """Yields the charts of KV memory for which the runs have figures."""
    if any(run.kv is not None for run in runs):
        yield Chart(
            "kv-by-tier",
            "KV memory in use, by tier",
            "Blocks in use over blocks of the tier, all replicas together: of `hbm` those of the step that "
            "runs (none while a replica idles), of the tiers under it those that they hold.",
            _tiers(runs),
        )
    if any(run.summary.get("kv_waste") for run in runs):
        text = defined("kv_waste")
        yield Chart("kv-waste", "What held KV memory is used for", text, _waste(runs))
    yield Chart(
        "hit-rate",
        "Prompt tokens from the prefix cache",
        f"cached_tokens / prompt_tokens of the completed requests that arrived in each {bins.width_s:g} s; "
        f"the summary's rate counts lookups: {defined('prefix_cache_hit_rate')}",
        _hit_rate(runs, bins),
    )
    misses = [_misses(run) for run in runs]
    if any(misses):
        text = "Prompt tokens looked up and not found in HBM, by reason, over all prompt tokens looked up."
        yield Chart("prefix-misses", "Why the prefix cache missed", text, _miss_bars(runs, misses))
    if any(run.steps is not None and run.summary["num_preemptions"] for run in runs):
        text = f"Times that a running request lost its KV cache, in each {bins.width_s:g} s, all replicas."
        yield Chart("preemptions", "Preemptions", text, _preemptions(runs, bins))


def _tiers(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure(TIME, "share of blocks in use")
    for number, run in enumerate(runs):
        if run.kv is None:
            continue
        blocks = run.kv.groupby(["tier", "sampled_at"], observed=True)[["used_blocks", "free_blocks"]].sum()
        share = blocks["used_blocks"] / blocks.sum(axis=1)
        for place, (tier, own) in enumerate(share.groupby("tier", observed=True)):
            figure.add_scatter(
                x=own.index.get_level_values("sampled_at").tolist(),
                y=values_of(own.to_numpy(np.float64)),
                name=f"{run.name}: {tier}",
                mode="lines",
                line={"color": color_of(number), "dash": DASHES[place % len(DASHES)]},
            )
    figure.update_yaxes(range=[0, 1.02])
    return figure


def _waste(runs: Sequence[Run]) -> go.Figure:
    figure = make_figure("share of token slots x time", "")
    told = [run for run in runs if run.summary.get("kv_waste")]
    for number, kind in enumerate(_WASTE):
        shares = [run.summary["kv_waste"][f"{kind}_share"] for run in told]
        names, color = [run.name for run in told], PART_COLORS[number]
        figure.add_bar(x=shares, y=names, name=kind, orientation="h", marker={"color": color})
    figure.update_layout(barmode="stack")
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _hit_rate(runs: Sequence[Run], bins: Bins) -> go.Figure:
    figure = make_figure(TIME, "share of prompt tokens")
    for number, run in enumerate(runs):
        arrived_at = _column(run.completed, "arrived_at")
        cached, prompt = (
            bins.total(arrived_at, _column(run.completed, f"{kind}_tokens")) for kind in ("cached", "prompt")
        )
        shares = values_of(bins.ratio(cached, prompt))
        line = {"color": color_of(number)}
        figure.add_scatter(x=bins.middle, y=shares, name=run.name, mode="lines+markers", line=line)
    figure.update_traces(marker={"size": 3})
    figure.update_yaxes(range=[0, 1.02])
    return figure


def _misses(run: Run) -> dict[str, float]:
    """Returns the share of the tokens looked up that each reason for a miss stands for."""
    num_queried = sum(kv["prefix_query_tokens"] for kv in run.summary["kv"])
    tokens: dict[str, int] = {}
    for kv in run.summary["kv"]:
        for reason, num_tokens in kv["prefix_misses"].items():
            tokens[reason] = tokens.get(reason, 0) + num_tokens
    return {reason: num / num_queried for reason, num in tokens.items() if num and num_queried}


def _miss_bars(runs: Sequence[Run], misses: Sequence[dict[str, float]]) -> go.Figure:
    figure = make_figure("", "share of tokens looked up")
    for number, (run, own) in enumerate(zip(runs, misses, strict=True)):
        labels = [reason.replace("_", " ") for reason in own]
        figure.add_bar(x=labels, y=list(own.values()), name=run.name, marker={"color": color_of(number)})
    figure.update_yaxes(range=[0, 1])
    return figure


def _preemptions(runs: Sequence[Run], bins: Bins) -> go.Figure:
    figure = make_figure(TIME, "preemptions")
    for number, run in enumerate(runs):
        if run.steps is not None:
            counts = bins.total(_column(run.steps, "started_at"), _column(run.steps, "num_preempted"))
            figure.add_bar(
                x=bins.middle, y=counts.tolist(), name=run.name, marker={"color": color_of(number)}
            )
    return figure


def _column(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(np.float64)
