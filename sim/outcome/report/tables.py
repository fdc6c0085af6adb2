"""Tables of a report: key figures, differences, cost, and what each run was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .differences import CONFIDENCE, Difference
from .objective_charts import attainment
from .run_folder import Run

_KEYS = {
    "completed": "Completed requests",
    "failed": "Failed requests",
    "duration": "Duration [s]",
    "request_throughput": "Requests [req/s]",
    "request_goodput": "Goodput: requests within the SLO [req/s]",
    "output_throughput": "Output tokens [tok/s]",
    "total_token_throughput": "All tokens [tok/s]",
    "max_concurrent_requests": "Peak concurrent requests",
    **{
        f"{statistic}_{metric}_ms": f"{metric.upper()} {statistic} [ms]"
        for metric in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "p99")
    },
    "mean_queue_ms": "Time in the queue, mean [ms]",
    "num_preemptions": "Preemptions",
    "prefix_cache_hit_rate": "Prefix cache hit rate [share]",
    "busy_share": "Replicas busy [share]",
    "mfu": "MFU [share]",
    "mbu": "MBU [share]",
    "extrapolated_steps": "Steps priced outside the profile's range",
}
TABLE_STYLE = """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .15em .8em .15em 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
.text td, .text th { text-align: left; white-space: normal; }
td.sure { font-weight: bold; }
"""


def key_table(runs: Sequence[Run]) -> str:
    """Returns the key figures of all runs; each cell names its run and key and holds the value unrounded."""
    rows = []
    for key, label in _KEYS.items():
        values = [run.summary[key] for run in runs]
        if any(value is not None for value in values):
            cells = "".join(_figure(number, key, value) for number, value in enumerate(values))
            rows.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    return _table(["", *(run.name for run in runs)], rows)


def cost_table(runs: Sequence[Run]) -> str:
    """Returns what the runs cost at their pools' prices; nothing where no run tells."""
    if not any("gpu_hours" in run.summary for run in runs):
        return ""
    costs = [_cost(run) for run in runs]
    rows = [
        f"<tr><td>{escape(label)}</td>{''.join(f'<td>{shown(cost[label])}</td>' for cost in costs)}</tr>"
        for label in costs[0]
    ]
    return _table(["", *(run.name for run in runs)], rows)


def _cost(run: Run) -> dict[str, float | None]:
    """Returns GPU-hours, and GPUs and tiers in USD; None if the price of a GPU is not known."""
    summary = run.summary
    gpus_usd, tokens = summary.get("cost_usd"), summary["total_output_tokens"]
    tiers_usd = sum(tier["usd"] or 0.0 for tier in summary["kv_tiers"])
    usd = None if gpus_usd is None else gpus_usd + tiers_usd
    return {
        "GPU-hours": summary.get("gpu_hours"),
        "GPUs [USD]": gpus_usd,
        "Tiers under HBM [USD]": tiers_usd,
        "GPUs and tiers [USD]": usd,
        "USD per million output tokens": 1e6 * usd / tokens if usd is not None and tokens else None,
    }


def fault_table(runs: Sequence[Run]) -> str:
    """Returns what broke and what that lost, as the summary's `faults` tells; nothing without faults."""
    told = [run.summary.get("faults") or {} for run in runs]
    names = list(dict.fromkeys(name for own in told for name in own))
    rows = [
        f"<tr><td>{escape(name.replace('_', ' '))}</td>"
        + "".join(f"<td>{shown(own.get(name))}</td>" for own in told)
        + "</tr>"
        for name in names
    ]
    return _table(["faults", *(run.name for run in runs)], rows) if rows else ""


def objective_table(runs: Sequence[Run]) -> str:
    """Returns the share of requests that keep each limit; nothing where no run has an objective."""
    shares = [attainment(run) if run.slo.limits_s else {} for run in runs]
    metrics = [metric for metric in ("ttft", "tpot", "e2el", "all") if any(metric in own for own in shares)]
    rows = [
        f"<tr><td>{escape(metric if metric == 'all' else metric.upper())}</td>"
        + "".join(f"<td>{shown(own.get(metric))}</td>" for own in shares)
        + "</tr>"
        for metric in metrics
    ]
    return _table(["within the limit of [share]", *(run.name for run in runs)], rows) if rows else ""


def difference_table(found: Sequence[Difference]) -> str:
    """Returns each difference with its interval; bold is what chance does not explain."""
    rows = [
        f"<tr><td>{escape(one.run)}</td><td>{one.statistic} {one.metric.upper()}</td>"
        f"<td{' class=sure' if one.is_sure else ''}>{one.difference_ms:+,.2f}</td>"
        f"<td>{_interval(one)}</td><td>{_percent(one.relative)}</td>"
        f"<td>{'paired' if one.is_paired else 'apart'}</td></tr>"
        for one in found
    ]
    headings = ["run", "figure", "difference [ms]", f"{CONFIDENCE:.0%} interval [ms]", "relative", "requests"]
    return _table(headings, rows)


def facts_table(runs: Sequence[Run]) -> str:
    """Returns what each run simulated: scenario, model, hardware and profile."""
    rows = []
    for run in runs:
        summary = run.summary
        pools = ", ".join(
            f"{pool['name']}: {pool['num_replicas']} x {pool['num_gpus_per_replica']} {pool['device']}"
            for pool in summary["pools"]
        )
        profile = f"{summary['profile']['name']} ({summary['profile']['kind']})"
        cells = (run.name, summary["scenario_name"], summary["seed"], summary["model"], pools, profile,
                 summary["simllm_version"])  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    headings = ["run", "scenario", "seed", "model", "pools: replicas x GPUs", "profile", "simllm"]
    notes = sorted({f"{run.name}: {note}" for run in runs for note in run.summary["notes"]})
    return f'<div class="text">{_table(headings, rows)}</div>{_paragraphs(notes)}'


def definitions_list(runs: Sequence[Run]) -> str:
    """Returns what every figure of a summary means, folded away."""
    items = "".join(
        f"<dt><code>{escape(key)}</code></dt><dd>{escape(text)}</dd>"
        for key, text in runs[0].summary["definitions"].items()
    )
    return f"<details><summary>Definitions of all figures of a summary</summary><dl>{items}</dl></details>"


def shown(value: float | int | None) -> str:
    """Returns a figure as people read it: counts whole, others with four digits, a dash for unknown."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def _figure(number: int, key: str, value: float | int | None) -> str:
    exact = "" if value is None else f' data-value="{value!r}"'
    return f'<td data-run="{number}" data-key="{key}"{exact}>{shown(value)}</td>'


def _interval(one: Difference) -> str:
    if one.low_ms is None or one.high_ms is None:
        return "–"
    return f"{one.low_ms:+,.2f} to {one.high_ms:+,.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:+.1%}"


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
