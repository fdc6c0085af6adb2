"""Simulated against measured: signed relative errors of one run, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SimllmError
from ...units import MS_PER_S
from ..outcome.results import Result
from .cold import ColdStep, hit_by, without_stalls
from .measured import STATISTICS, MeasuredRun, statistics

LATENCIES = ("ttft", "tpot", "itl", "e2el")
THROUGHPUTS = ("output_throughput", "request_throughput")
_SUMMARY = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}

ByMetric = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Count:
    """A number of things on both sides; measured is None where it was not recorded."""

    simulated: int
    measured: int | None

    @property
    def error(self) -> float | None:
        """simulated / measured - 1; 0 if both are 0, None if nothing can be said."""
        if self.measured is None or (self.measured == 0 and self.simulated > 0):
            return None
        return self.simulated / self.measured - 1 if self.measured else 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One run on both sides.

    measured, simulated: latency -> statistic [ms], and throughputs [1/s]. errors: simulated / measured - 1
    of each. num_compared: requests in the statistics, those that finished in the simulation and that no
    cold step hit.
    """

    num_requests: int
    num_compared: int
    measured: ByMetric
    simulated: ByMetric
    errors: ByMetric
    measured_throughput: dict[str, float]
    simulated_throughput: dict[str, float]
    throughput_errors: dict[str, float]
    prefix_hit_tokens: Count
    num_preemptions: Count


def compare(
    run: MeasuredRun,
    result: Result,
    cold: Sequence[ColdStep],
    *,
    num_preemptions: int | None,
    is_closed: bool,
) -> Compared:
    """Returns the errors of a simulated run against the measured one that it replays.

    Requests that a cold step hit are left out on both sides; if that were all of them, all count, less what
    the cold steps took too long. By as much the duration of a closed loop is shortened, where everything
    after a cold step came later.
    """
    summary, requests = result.summary(), result.requests
    is_finished = requests["status"].to_numpy() == "finished"
    kept = is_finished & ~hit_by(cold, run)
    if not kept.any():
        run, kept = without_stalls(cold, run), is_finished
    simulated = {
        metric: statistics(requests[f"{metric}_ms"].to_numpy(dtype=np.float64)[kept])
        for metric in ("ttft", "tpot", "e2el")
    }
    simulated["itl"] = _summary_itl(summary) if kept.all() else _pooled_itl(result, kept)
    measured = measured_statistics(run, kept)
    throughput = _throughput(run, cold if is_closed else ())
    cached = None if run.cached_tokens is None else int(run.cached_tokens.sum())
    return Compared(
        num_requests=len(kept),
        num_compared=int(kept.sum()),
        measured=measured,
        simulated=simulated,
        errors={metric: _errors(simulated[metric], measured[metric]) for metric in LATENCIES},
        measured_throughput=throughput,
        simulated_throughput={name: summary[name] or 0.0 for name in THROUGHPUTS},
        throughput_errors={name: (summary[name] or 0.0) / throughput[name] - 1 for name in THROUGHPUTS},
        prefix_hit_tokens=Count(summary["cached_tokens"], cached),
        num_preemptions=Count(summary["num_preemptions"], num_preemptions),
    )


def _throughput(run: MeasuredRun, cold: Sequence[ColdStep]) -> dict[str, float]:
    """Returns the measured throughputs, over the duration without what the cold steps took too long."""
    duration_s = run.duration_s - sum(step.excess_s for step in cold)
    return {name: getattr(run, name) * run.duration_s / duration_s for name in THROUGHPUTS}


def measured_statistics(run: MeasuredRun, kept: NDArray[np.bool_]) -> ByMetric:
    """Returns mean, p50, p90 and p99 [ms] of each latency over the requests that are `kept`.

    ITL pools all gaps; where some are left out of the file, it is the file's own figure for all requests,
    and none if not all requests are kept.
    """
    found = {
        "ttft": statistics(run.ttft_s[kept] * MS_PER_S),
        "tpot": statistics(run.tpot_s[kept] * MS_PER_S),
        "e2el": statistics(run.e2el_s[kept] * MS_PER_S),
    }
    if run.itls is not None:
        gaps = [own for own, is_kept in zip(run.itls, kept, strict=True) if is_kept]
        found["itl"] = statistics(np.concatenate([np.empty(0), *gaps]) * MS_PER_S)
    else:
        found["itl"] = dict(run.scalar_itl) if kept.all() else {}
    return found


def _summary_itl(summary: dict[str, Any]) -> dict[str, float]:
    found = {ours: summary[f"{theirs}_itl_ms"] for ours, theirs in _SUMMARY.items()}
    return {name: value for name, value in found.items() if value is not None}


def _pooled_itl(result: Result, kept: NDArray[np.bool_]) -> dict[str, float]:
    """Returns the statistics of the gaps of some requests; nothing where token times are not known."""
    try:
        gaps = [result.itls(int(row)) for row in np.flatnonzero(kept)]
    except SimllmError:
        return {}
    return statistics(np.concatenate([np.empty(0), *gaps]) * MS_PER_S)


def _errors(simulated: dict[str, float], measured: dict[str, float]) -> dict[str, float]:
    shared = (name for name in STATISTICS if name in simulated and measured.get(name))
    return {name: simulated[name] / measured[name] - 1 for name in shared}
