"""The report of one run, or of several side by side: one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from ..page import figure_html, html_page
from .bins import common_bins
from .difference_chart import difference_charts
from .differences import Difference, differences
from .fleet_charts import fleet_charts
from .group_charts import group_charts
from .latency_charts import latency_charts
from .load_charts import load_charts
from .look import Chart
from .memory_charts import memory_charts
from .objective_charts import objective_charts
from .run_folder import Run
from .step_charts import step_charts
from .tables import (
    TABLE_STYLE,
    cost_table,
    definitions_list,
    difference_table,
    facts_table,
    fault_table,
    key_table,
    objective_table,
)
from .traffic_charts import traffic_charts

DATA_ID = "simllm-report"
Section = tuple[str, str, Sequence[Chart]]
_STYLE = (
    TABLE_STYLE
    + """
nav { display: flex; flex-wrap: wrap; gap: .2em 1.2em; margin: 1em 0; }
a { color: inherit; }
section { margin-top: 2.5em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1em; }
.chart { background: var(--card); border-radius: 6px; padding: .6em .8em; min-width: 0; }
h3 { margin: .2em 0; font-size: 1.05em; }
.soft, .chart p { color: var(--soft); font-size: .85em; margin: .2em 0; overflow-wrap: anywhere; }
dd { margin: 0 0 .5em 1.5em; }
@media (max-width: 600px) { body { padding: 0 .5em 2em; } .chart { padding: .4em 0; } }
"""
)


def report_html(runs: Sequence[Run]) -> str:
    """Returns the page; the same runs give the same page."""
    found = differences(runs)
    sections = report_sections(runs, found)
    names = " against ".join(run.name for run in reversed(runs)) if len(runs) < 3 else f"{len(runs)} runs"
    heading = f"{runs[0].summary['scenario_name'] or 'simllm'}: {names}"
    unrecorded = [run.name for run in runs if run.steps is None]
    note = f"<p>Steps were not recorded: {escape(', '.join(unrecorded))}.</p>" if unrecorded else ""
    parts = [
        facts_table(runs), note, _navigation(sections), *(_section(*section) for section in sections),
        definitions_list(runs), _data(runs, found, sections),
    ]  # fmt: skip
    return html_page(f"simllm report: {names}", heading, parts, _STYLE)


def report_charts(runs: Sequence[Run]) -> list[Chart]:
    """Returns all charts of the page, in its order."""
    return [chart for _, _, charts in report_sections(runs, differences(runs)) for chart in charts]


def report_sections(runs: Sequence[Run], found: Sequence[Difference]) -> list[Section]:
    """Returns the parts of the page: a title, tables as HTML, and charts each; empty ones are left out."""
    bins = common_bins(runs)
    sections: list[Section] = [
        ("Key figures", key_table(runs), ()),
        (
            "Differences",
            difference_table(found) if found else "",
            tuple(difference_charts(runs, found)),
        ),
        ("Latency", "", tuple(latency_charts(runs, bins))),
        ("Load", "", tuple(load_charts(runs, bins))),
        ("Service level objective", objective_table(runs), tuple(objective_charts(runs, bins))),
        ("Time", "", tuple(step_charts(runs, bins))),
        ("Memory", "", tuple(memory_charts(runs, bins))),
        ("Tiers and links", "", tuple(traffic_charts(runs))),
        ("Requests by kind", "", tuple(group_charts(runs))),
        ("Cost and fleet", cost_table(runs) + fault_table(runs), tuple(fleet_charts(runs))),
    ]
    return [section for section in sections if section[1] or section[2]]


def _navigation(sections: Iterable[Section]) -> str:
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title, _, _ in sections)
    return f"<nav>{links}</nav>"


def _section(title: str, tables: str, charts: Sequence[Chart]) -> str:
    drawn = "".join(
        f'<div class="chart"><h3>{escape(chart.title)}</h3><p>{escape(chart.definition)}</p>'
        f"{figure_html(chart.figure, f'chart-{chart.key}')}</div>"
        for chart in charts
    )
    grid = f'<div class="charts">{drawn}</div>' if drawn else ""
    return f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>{tables}{grid}</section>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _data(runs: Sequence[Run], found: Sequence[Difference], sections: Iterable[Section]) -> str:
    """Returns the page's figures for machines: the summaries as they are, and the differences."""
    charts = [
        {"key": chart.key, "title": chart.title, "definition": chart.definition}
        for _, _, own in sections
        for chart in own
    ]
    data = {
        "runs": [{"name": run.name, "summary": run.summary} for run in runs],
        "differences": [one.as_dict() for one in found],
        "charts": charts,
    }
    # Inside a script element a `<` may end it early or begin another; JSON may write it as its code.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{DATA_ID}">{text}</script>'
