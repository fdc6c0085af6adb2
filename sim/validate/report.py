"""Overlay plots of a validation: one HTML file that needs nothing else, written whole or not at all.

Every run gets the distributions of TTFT, TPOT and E2EL, measured and simulated, and where its steps were
recorded, predicted over measured step time: in the course of the run, and against a step's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import SimllmError
from ...units import MS_PER_S
from ..outcome.files import write_text_whole
from ..outcome.page import COLORS, cdf_points, check_plots, figure_html, html_page, thinned
from .cold import is_cold
from .step_times import CLASSES, PricedStep
from .tables import load_of, percent, short_name
from .validation import Validation

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FILE_NAME = "validation.html"
_LATENCIES = ("ttft", "tpot", "e2el")
_MEASURED, _SIMULATED = COLORS[:2]
_KIND_COLORS = dict(zip(CLASSES, COLORS[2:5], strict=True))


def write_report(runs: Sequence[Validation], directory: Path) -> Path:
    """Writes the plots of all runs into a folder, which is made if need be; returns the file.

    Raises: SimllmError if it cannot be written; nothing is left behind then.
    """
    check_plots(directory)
    page = report_html(runs)
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimllmError(f"{directory}: cannot be made: {error.strerror or error}") from error
    try:
        write_text_whole(directory / FILE_NAME, page)
    except SimllmError:
        if is_new:
            directory.rmdir()
        raise
    return directory / FILE_NAME


def report_html(runs: Sequence[Validation]) -> str:
    """Returns the page with all plots and plotly's own script in it."""
    return html_page("simllm validate", "Simulated against measured", [_section(run) for run in runs])


def _section(run: Validation) -> str:
    compared = run.compared
    told = ", ".join(
        f"{metric.upper()} mean {percent(compared.errors[metric].get('mean'))}" for metric in _LATENCIES
    )
    throughput = percent(compared.throughput_errors["output_throughput"])
    lines = [
        f"<h2>{escape(short_name(run.file))}</h2>",
        f"<p>{compared.num_requests} requests, {escape(load_of(run.saturation))}; output throughput "
        f"{throughput}, {told} (simulated / measured - 1)</p>",
        *(f"<p>{escape(note)}</p>" for note in run.notes),
        figure_html(_distributions(run)),
    ]
    if run.priced:
        lines.append(figure_html(_step_times(run)))
    return "\n".join(lines)


def _distributions(run: Validation) -> Figure:
    from plotly.subplots import make_subplots

    titles = [f"{metric.upper()} [ms]" for metric in _LATENCIES]
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles)
    measured_s = {"ttft": run.run.ttft_s, "tpot": run.run.tpot_s, "e2el": run.run.e2el_s}
    for column, metric in enumerate(_LATENCIES, 1):
        sides = (
            ("measured", measured_s[metric] * MS_PER_S, _MEASURED),
            ("simulated", run.simulated_ms[metric], _SIMULATED),
        )
        for name, values, color in sides:
            line = {"color": color, "shape": "hv"}
            figure.add_scatter(
                **cdf_points(values),
                name=name,
                line=line,
                mode="lines",
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_yaxes(title_text="share of requests", range=[0, 1], col=1)
    figure.update_layout(height=360, margin={"t": 40, "b": 40})
    return figure


def _step_times(run: Validation) -> Figure:
    from plotly.subplots import make_subplots

    titles = ["predicted / measured step time over the run [s]", "and against the step's tokens"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True)
    cold = is_cold([item.step for item in run.priced])
    own_times = [item for item, is_out in zip(run.priced, cold, strict=True) if item.is_fair and not is_out]
    for kind in CLASSES:
        own = [item for item in own_times if item.step.kind == kind]
        for column, x in enumerate((_instants, _tokens), 1):
            points = _points(own, x(own))
            marker = {"color": _KIND_COLORS[kind], "size": 4, "opacity": 0.6}
            figure.add_scatter(
                **points, name=kind, mode="markers", marker=marker, showlegend=column == 1, row=1, col=column
            )
    figure.add_hline(y=1, line={"color": COLORS[6], "width": 1})
    figure.update_xaxes(type="log", col=2)
    figure.update_yaxes(type="log", col=1)
    figure.update_layout(height=360, margin={"t": 40, "b": 40})
    return figure


def _instants(priced: Sequence[PricedStep]) -> list[float]:
    return [item.step.ended_at for item in priced]


def _tokens(priced: Sequence[PricedStep]) -> list[float]:
    return [float(item.step.num_tokens) for item in priced]


def _points(priced: Sequence[PricedStep], x: Sequence[float]) -> dict[str, Any]:
    places = thinned(len(priced))
    ratios = [priced[place].predicted_s / priced[place].step.duration_s for place in places]
    return {"x": [x[place] for place in places], "y": ratios}
