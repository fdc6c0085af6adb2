"""One self-contained HTML page about a calibration: roofline, predictions, residuals, ladder, errors, host.

plotly draws it and is loaded only here; its script is part of the page, so that the page opens offline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..hwmodels.profile import HardwareProfile
from ..hwmodels.profile_schema import Rung, RungName
from ..units import US
from .report_data import ReportPoint, matrix_roofs, report_points
from .samples import Sample

Points = Mapping[str, Sequence[ReportPoint]]
Ladder = Mapping[RungName, Rung]
_LEVELS: Mapping[RungName, str] = {"hbm_read": "HBM", "l2": "L2", "sram": "shared memory"}
_DOT = {"size": 5, "opacity": 0.7}
_INTENSITIES = (0.05, 5000.0)  # FLOP/byte at the ends of the roofs
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1150px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}h2{margin-top:2em}p{color:#555}"""


def report_html(profile: HardwareProfile, samples: Sequence[Sample]) -> str:
    """Returns the page; a part for which the profile has nothing says so."""
    points: Points = {} if profile.ops is None else report_points(profile.ops, samples)
    ladder = profile.ladder
    figures = (
        ("Roofline", "Every measured point under the roofs that probes and products reached.",
         roofline(points, ladder)),
        ("Predicted against measured", "On the line the prediction is right.", predicted(points)),
        ("Residuals by shape", "Predicted over measured time; every dot is one point.", residuals(points)),
        ("Ladder of bandwidths", "What the probes read from each level of the memory.", ladder_bars(ladder)),
    )  # fmt: skip
    parts = [f"<h1>Calibration of {escape(profile.name)}</h1>"]
    parts += [f"<h2>{title}</h2><p>{text}</p>{_embedded(figure, title)}" for title, text, figure in figures]
    parts += [f"<h2>Launches</h2>{launches_table(ladder)}"]
    parts += [f"<h2>Errors on shapes left out</h2>{errors_table(profile)}"]
    parts += [f"<h2>Host</h2>{_table(('', ''), profile.host.items())}"]
    head = f"<meta charset='utf-8'><title>{escape(profile.name)}</title><style>{_STYLE}</style>"
    script = f"<script>{get_plotlyjs()}</script>"
    body = "\n".join(parts)
    return f"<!doctype html><html><head>{head}{script}</head><body>{body}</body></html>\n"


def _embedded(figure: go.Figure, title: str) -> str:
    """Returns the figure's division; its id follows from the title, so that equal inputs give equal bytes."""
    name = title.lower().replace(" ", "-")
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name))


def _figure(x: str, y: str, *, height: int = 620) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 70, "r": 20, "t": 20, "b": 60},
        xaxis_title=x, yaxis_title=y,
    )  # fmt: skip
    return figure


def roofline(points: Points, ladder: Ladder) -> go.Figure:
    """Returns FLOP/s over FLOP/byte, log-log, with a slope per memory level and a flat roof per dtype."""
    figure = _figure("FLOP per byte of HBM traffic", "FLOP/s")
    roofs = matrix_roofs(points)
    for level, title in _LEVELS.items():
        if level in ladder:
            bandwidth = ladder[level].value
            top = max(roofs.values(), default=bandwidth * _INTENSITIES[1])
            ends = (_INTENSITIES[0], top / bandwidth)
            figure.add_scatter(
                x=ends, y=[end * bandwidth for end in ends], mode="lines",
                name=f"{title} {bandwidth / 1e12:.2f} TB/s",
                line={"dash": "dot"},
            )  # fmt: skip
    for dtype, rate in sorted(roofs.items()):
        figure.add_scatter(
            x=_INTENSITIES, y=(rate, rate), mode="lines", name=f"{dtype} {rate / 1e12:.0f} TFLOP/s",
            line={"dash": "dash"},
        )  # fmt: skip
    for key, group in points.items():
        shown = [point for point in group if point.flops_per_byte > 0 and point.flops_per_s > 0]
        figure.add_scattergl(
            x=[point.flops_per_byte for point in shown], y=[point.flops_per_s for point in shown],
            mode="markers", name=key, text=[point.label for point in shown], marker=_DOT,
        )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def predicted(points: Points) -> go.Figure:
    """Returns predicted over measured microseconds, log-log, with the line on which both agree."""
    figure = _figure("measured [us]", "predicted [us]")
    times = [point.measured_s / US for group in points.values() for point in group] or [1.0]
    ends = (min(times), max(times))
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": "#999"})
    for key, group in points.items():
        figure.add_scattergl(
            x=[point.measured_s / US for point in group], y=[point.predicted_s / US for point in group],
            mode="markers", name=key, text=[point.label for point in group], marker=_DOT,
        )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def residuals(points: Points) -> go.Figure:
    """Returns predicted over measured of every point, above the shape that it belongs to, op by op."""
    figure = _figure("shape", "predicted / measured")
    for place, (key, group) in enumerate(points.items()):
        ordered = sorted(group, key=lambda point: point.shape)
        figure.add_scattergl(
            x=[point.shape for point in ordered], y=[point.ratio for point in ordered], mode="markers",
            name=key, text=[point.label for point in ordered], visible=True if place == 0 else "legendonly",
            marker=_DOT,
        )  # fmt: skip
    figure.add_hline(y=1.0, line_color="#999")
    figure.update_yaxes(type="log")
    figure.update_xaxes(type="category")
    return figure


def ladder_bars(ladder: Ladder) -> go.Figure:
    """Returns the bandwidth of every rung [TB/s], with the worst and the best of its samples."""
    figure = _figure("TB/s", "", height=360)
    rungs = {name: rung for name, rung in ladder.items() if rung.unit == "B/s"}
    figure.add_bar(
        y=[name.replace("_", " ") for name in rungs],
        x=[rung.value / 1e12 for rung in rungs.values()],
        error_x={
            "type": "data", "symmetric": False,
            "array": [(rung.high - rung.value) / 1e12 for rung in rungs.values()],
            "arrayminus": [(rung.value - rung.low) / 1e12 for rung in rungs.values()],
        },
        orientation="h", name="probes",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def errors_table(profile: HardwareProfile) -> str:
    """Returns the errors on shapes that were left out of the fits, as the profile holds them."""
    if profile.ops is None:
        return "<p>No operation was fitted.</p>"
    rows = [
        (
            f"{entry.op} {entry.implementation} {entry.dtype}", entry.num_samples,
            *(f"{value:.1%}" for value in (entry.held_out.median, entry.held_out.p90, entry.held_out.worst)),
            f"{entry.held_out.num_groups} {entry.held_out.grouped_by}",
        )
        for entry in profile.ops.entries
    ]  # fmt: skip
    return _table(("operation", "samples", "median", "p90", "worst", "left out by"), rows)


def launches_table(ladder: Ladder) -> str:
    """Returns what a launch costs, inside a CUDA graph and from Python."""
    rows = [
        (name.replace("_", " "), f"{rung.value / US:.2f} us")
        for name, rung in ladder.items()
        if rung.unit == "s"
    ]
    return _table(("launch", "time"), rows) if rows else "<p>No launch was probed.</p>"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f"<table><tr>{head}</tr>{cells}</table>"
