"""What a run prints: the block of `vllm bench serve`, line for line, and a section of simllm's own.

Source: vLLM vllm/benchmarks/serve.py (layout: 50 columns, labels padded to 40, values with two decimals).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .summary import Summary

_WIDTH = 50
_LATENCIES = (
    ("ttft", "TTFT", "Time to First Token"),
    ("tpot", "TPOT", "Time per Output Token (excl. 1st token)"),
    ("itl", "ITL", "Inter-token Latency"),
    ("e2el", "E2EL", "End-to-end Latency"),
)
_TOTALS = (
    ("Successful requests:", "completed"),
    ("Failed requests:", "failed"),
    ("Benchmark duration (s):", "duration"),
    ("Total input tokens:", "total_input_tokens"),
    ("Total generated tokens:", "total_output_tokens"),
    ("Request throughput (req/s):", "request_throughput"),
    ("Request goodput (req/s):", "request_goodput"),
    ("Output token throughput (tok/s):", "output_throughput"),
    ("Peak output token throughput (tok/s):", "max_output_tokens_per_s"),
    ("Peak concurrent requests:", "max_concurrent_requests"),
    ("Total token throughput (tok/s):", "total_token_throughput"),
)


def benchmark_block(summary: Summary) -> str:
    """Returns the result of a run as text of 50 columns, ending without a newline."""
    lines = [f"{' Serving Benchmark Result ':=^{_WIDTH}}"]
    for label, key in _TOTALS:
        value = summary[key]
        if key == "max_concurrent_requests":
            value = float(value)  # a count, but vLLM prints it with two decimals
        if key != "request_goodput" or summary["slo"]:
            lines.append(_line(label, value))
    for metric, name, title in _LATENCIES:
        lines.append(f"{title:-^{_WIDTH}}")
        lines += [
            _line(f"{statistic.title()} {name} (ms):", summary[f"{statistic}_{metric}_ms"])
            for statistic in ("mean", "median", "p99")
        ]
    lines.append(f"{'Simulated Engine':-^{_WIDTH}}")
    lines += [_line(label, value) for label, value in _engine(summary)]
    return "\n".join([*lines, "=" * _WIDTH])


def speed_line(summary: Summary, wall_s: float) -> str:
    """Returns how much faster than real time the run was simulated, for a person who waited."""
    simulated_s = summary["span_s"]
    ratio = f", {simulated_s / wall_s:,.0f} times real time" if wall_s > 0 else ""
    return f"simulated {simulated_s:,.1f} s in {wall_s:.2f} s{ratio}"


def _engine(summary: Summary) -> Iterator[tuple[str, object]]:
    """Yields what a real benchmark cannot see; counts of mishaps only where there are any."""
    for label, key in (
        ("Rejected requests:", "rejected"),
        ("Requests given up:", "given_up"),
        ("Unfinished requests:", "unfinished"),
        ("Answers cut at context limit:", "truncated"),
        ("Steps outside profiled range:", "extrapolated_steps"),
    ):
        if summary[key]:
            yield label, summary[key]
    yield "Preemptions:", summary["num_preemptions"]
    yield "Peak KV cache usage (%):", _percent(_peak_kv_share(summary["kv"]))
    yield "Prefix cache hit rate (%):", _percent(summary["prefix_cache_hit_rate"])
    for tier, share in _tier_shares(summary).items():
        yield f"    of it in {tier} (%):", _percent(share)
    if summary["faults"] is not None:
        yield "Availability (%):", _percent(summary["faults"]["availability"])
        yield "Requests lost in crashes:", summary["faults"]["lost_requests"]
        yield "Tokens computed for nothing:", summary["faults"]["lost_tokens"]
    if summary["scaling"] is not None:
        yield "GPU hours:", summary["gpu_hours"]
        yield "Cost (USD):", summary["cost_usd"]
    yield "Replica busy (%):", _percent(summary["busy_share"])
    if summary["bubble_share"] is not None:
        yield "Pipeline bubbles (%):", _percent(summary["bubble_share"])
    yield "MFU (%):", _percent(summary["mfu"])
    yield "MBU (%):", _percent(summary["mbu"])
    yield "Hardware profile:", f"{summary['profile']['name']} ({summary['profile']['kind']})"


def _tier_shares(summary: Summary) -> dict[str, float]:
    """Returns the prompt tokens hit in each tier under HBM over all that were looked up."""
    num_queried = sum(kv["prefix_query_tokens"] for kv in summary["kv"])
    shares: dict[str, float] = {}
    for tier in summary["kv_tiers"]:
        name = tier["tier"]
        shares[name] = shares.get(name, 0.0) + tier["hit_tokens"] / max(num_queried, 1)
    return shares


def _peak_kv_share(caches: list[Mapping[str, int | None]]) -> float | None:
    shares = [
        used / blocks
        for kv in caches
        if (used := kv["max_used_blocks"]) is not None and (blocks := kv["num_blocks"])
    ]
    return max(shares, default=None)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _line(label: str, value: object) -> str:
    # Counts as they are, figures with two decimals, a dash for what is not known. vLLM pads the value to
    # ten columns; the blanks at the line's end are left out here.
    shown = "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{label:<40} {shown}"
