"""Simulated against measured: signed relative errors of one run, metric by metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workload.traces.vllm_bench import BenchResult

Floats = NDArray[np.float64]
STATISTICS = ("mean", "p50", "p90", "p99")
LATENCIES = ("ttft", "tpot", "itl", "e2el")
THROUGHPUTS = ("output_throughput", "request_throughput")


@dataclass(frozen=True, slots=True)
class RunErrors:
    """How far a simulated run is off a measured one.

    latency: metric -> statistic -> simulated / measured - 1. throughput likewise. measured: the values that
    were compared with, in ms and per second. prefix_hit_tokens: (simulated, measured).
    waiting_share: share of the simulated busy time with requests waiting for admission; saturation: what
    that means.
    """

    file: str
    num_requests: int
    latency: dict[str, dict[str, float]]
    throughput: dict[str, float]
    measured: dict[str, dict[str, float]]
    prefix_hit_tokens: tuple[int, int]
    num_preemptions: int
    waiting_share: float
    saturation: str

    def as_dict(self) -> dict[str, Any]:
        """Returns the errors as plain values for JSON."""
        return {
            "file": self.file,
            "num_requests": self.num_requests,
            "errors": {**self.latency, **self.throughput},
            "measured": self.measured,
            "prefix_hit_tokens": {
                "simulated": self.prefix_hit_tokens[0],
                "measured": self.prefix_hit_tokens[1],
            },
            "num_preemptions": {"simulated": self.num_preemptions},
            "saturation": {"verdict": self.saturation, "waiting_share": self.waiting_share},
        }


def measured_statistics(bench: BenchResult) -> dict[str, dict[str, float]]:
    """Returns mean, p50, p90 and p99 [ms] of each latency, from the per-request arrays where they suffice.

    ITL is taken from the file's scalars: its lists leave out the gaps of long answers.
    """
    ttft, e2el = _seconds(bench, "ttfts"), _seconds(bench, "latencies")
    outputs = np.array(bench.items("output_lens"), dtype=np.float64)
    several = outputs > 1
    tpot = (e2el - ttft)[several] / (outputs[several] - 1)
    found = {"ttft": statistics(ttft * 1e3), "tpot": statistics(tpot * 1e3), "e2el": statistics(e2el * 1e3)}
    names = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}
    itl = {ours: bench.scalars.get(f"{theirs}_itl_ms") for ours, theirs in names.items()}
    found["itl"] = {name: float(value) for name, value in itl.items() if value is not None}
    return found


def statistics(values: Floats) -> dict[str, float]:
    """Returns mean and percentiles; nothing for no values."""
    if not len(values):
        return {}
    percentiles = np.percentile(values, (50, 90, 99))
    return dict(zip(STATISTICS, (float(values.mean()), *percentiles.tolist()), strict=True))


def simulated_statistics(summary: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Returns the same statistics [ms] from a run's summary."""
    names = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}
    return {
        metric: {ours: summary[f"{theirs}_{metric}_ms"] for ours, theirs in names.items()}
        for metric in LATENCIES
    }


def compare(
    path: Path, bench: BenchResult, summary: dict[str, Any], *, num_hit_tokens: int, waiting_share: float
) -> RunErrors:
    """Returns the errors of a simulated run against the file that it replays."""
    measured, simulated = measured_statistics(bench), simulated_statistics(summary)
    latency = {
        metric: {
            name: value / measured[metric][name] - 1
            for name, value in simulated[metric].items()
            if value is not None and measured[metric].get(name)
        }
        for metric in LATENCIES
    }
    throughput = {name: summary[name] / bench.scalars[name] - 1 for name in THROUGHPUTS}
    cached = sum(bench.items("cached_tokens")) if "cached_tokens" in bench.scalars else 0
    return RunErrors(
        file=str(path),
        num_requests=len(bench.rows),
        latency=latency,
        throughput=throughput,
        measured=measured,
        prefix_hit_tokens=(num_hit_tokens, cached),
        num_preemptions=summary["preempted"],
        waiting_share=waiting_share,
        saturation=saturation(waiting_share, is_closed=bench.num_clients is not None),
    )


def saturation(waiting_share: float, *, is_closed: bool) -> str:
    """Returns whether the load was what the engine could carry, in words.

    In a closed loop requests only wait if there are more clients than slots.
    """
    if waiting_share > 0.5:
        return "saturated"
    if waiting_share > 0.1:
        return "near saturation"
    return "closed loop" if is_closed else "below saturation"


def mean_absolute(runs: list[RunErrors]) -> dict[str, float]:
    """Returns the mean of the absolute errors over runs, by metric and statistic."""
    collected: dict[str, list[float]] = {}
    for run in runs:
        for name, error in run.throughput.items():
            collected.setdefault(name, []).append(abs(error))
        for metric, errors in run.latency.items():
            for name, error in errors.items():
                collected.setdefault(f"{metric}_{name}", []).append(abs(error))
    return {name: float(np.mean(errors)) for name, errors in collected.items()}


def _seconds(bench: BenchResult, name: str) -> Floats:
    return np.array(bench.items(name), dtype=np.float64)
