"""The chart of the differences between runs, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .differences import CONFIDENCE, Difference
from .look import Chart, color_of, make_figure
from .run_folder import Run


def difference_charts(runs: Sequence[Run], found: Sequence[Difference]) -> Iterator[Chart]:
    """Yields the relative differences from the first run; nothing with a single run."""
    if not found:
        return
    figure = make_figure(f"difference from {runs[0].name} [%]", "")
    for number, run in enumerate(runs[1:], 1):
        own = [one for one in found if one.run == run.name and one.relative is not None]
        middle = [100 * (one.relative or 0.0) for one in own]
        figure.add_scatter(
            x=middle,
            y=[f"{one.statistic} {one.metric.upper()}" for one in own],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": _reach(middle, [one.relative_high for one in own], 1),
                "arrayminus": _reach(middle, [one.relative_low for one in own], -1),
            },
            name=run.name,
            mode="markers",
            marker={"color": color_of(number), "size": 9},
        )
    figure.add_vline(x=0, line={"color": "#888"})
    figure.update_yaxes(autorange="reversed", type="category")
    text = (
        f"Latency over that of {runs[0].name}, minus 1, with the {CONFIDENCE:.0%} interval of a bootstrap "
        "over stretches of requests. Where it leaves out 0, chance does not explain the difference."
    )
    yield Chart("differences", f"Latency against {runs[0].name}", text, figure)


def _reach(middle: Sequence[float], ends: Sequence[float | None], sign: int) -> list[float]:
    """Returns how far the intervals reach to one side [%]; an unknown end does not."""
    return [
        max(sign * (100 * end - value), 0.0) if end is not None else 0.0
        for value, end in zip(middle, ends, strict=True)
    ]
