"""The fleet: how many replicas served and were paid for, where autoscalers or faults changed that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .look import DASHES, TIME, Chart, color_of, defined, make_figure
from .run_folder import Run


def fleet_charts(runs: Sequence[Run]) -> Iterator[Chart]:
    """Yields the size of the fleet over time; nothing where it never changed."""
    scaled = [(number, run) for number, run in enumerate(runs) if run.summary.get("scaling")]
    if not scaled:
        return
    figure = make_figure(TIME, "replicas")
    for number, run in scaled:
        for pool in run.summary["scaling"]["pools"]:
            sizes = [*pool["replicas"], [run.ended_at, *pool["replicas"][-1][1:]]] if pool["replicas"] else []
            for column, name in enumerate(("serving", "paid"), 1):
                figure.add_scatter(
                    x=[size[0] for size in sizes],
                    y=[size[column] for size in sizes],
                    name=f"{run.name}: {pool['pool']} {name}",
                    mode="lines",
                    line={"color": color_of(number), "dash": DASHES[column - 1], "shape": "hv"},
                )
    figure.update_yaxes(rangemode="tozero")
    yield Chart("fleet", "Replicas that serve and that are paid for", defined("scaling"), figure)
