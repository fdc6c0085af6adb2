"""What a benchmark client measured: the arrays of a result file as columns, in the order of the replay.

Units of `vllm bench serve`: arrays are in seconds, scalars in milliseconds.
Source: vllm/benchmarks/serve.py (keys of the result, read 2026-11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import TraceError
from ..workload.traces.vllm_bench import BenchResult

Floats = NDArray[np.float64]
STATISTICS = ("mean", "p50", "p90", "p99")
_SCALARS = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Columns of equal length, one row per answered request, in the order in which the replay sends them.

    sent_at: from the run's start [s], None in files of older versions, which don't tell. cached_tokens:
    None if not recorded. itls: the gaps between each request's tokens [s], None if some are left out.
    scalar_itl: mean and percentiles of all gaps [ms], as the file has them.
    """

    sent_at: Floats | None
    ttft_s: Floats
    e2el_s: Floats
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    cached_tokens: NDArray[np.int64] | None
    itls: tuple[Floats, ...] | None
    scalar_itl: dict[str, float]
    duration_s: float
    output_throughput: float
    request_throughput: float

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first [s]; nan for answers of one token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        result: Floats = (self.e2el_s - self.ttft_s) / gaps
        return result


def measured_run(bench: BenchResult) -> MeasuredRun:
    """Returns the columns of a result file.

    Raises: TraceError if it lacks an array or scalar that the comparison needs.
    """
    sent_at = bench.start_times() if "start_times" in bench.scalars else None
    itls = tuple(_floats(bench, f"itls[{row}]", gaps) for row, gaps in enumerate(_optional(bench, "itls")))
    ttft_s = _floats(bench, "ttfts", bench.items("ttfts"))
    outputs = bench.counts("output_lens")
    cached = _optional(bench, "cached_tokens")
    # The replay sends by start time; in a closed loop the file's order is that of sending.
    is_open = sent_at is not None and bench.num_clients is None
    order = np.argsort(sent_at, kind="stable") if is_open and sent_at is not None else np.arange(len(ttft_s))
    is_whole = bool(itls) and all(len(gaps) for gaps, num in zip(itls, outputs, strict=True) if num > 1)
    return MeasuredRun(
        sent_at=None if sent_at is None else sent_at[order],
        ttft_s=ttft_s[order],
        e2el_s=_latencies(bench, ttft_s, itls)[order],
        prompt_tokens=bench.counts("input_lens")[order],
        output_tokens=outputs[order],
        cached_tokens=np.array(cached, dtype=np.int64)[order] if cached else None,
        itls=tuple(itls[row] for row in order) if is_whole else None,
        scalar_itl=_scalar_itl(bench),
        duration_s=_scalar(bench, "duration"),
        output_throughput=_scalar(bench, "output_throughput"),
        request_throughput=_scalar(bench, "request_throughput"),
    )


def statistics(values: Floats) -> dict[str, float]:
    """Returns mean and percentiles without the nan; nothing for no values."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    percentiles = np.percentile(known, (50, 90, 99))
    return dict(zip(STATISTICS, (float(known.mean()), *percentiles.tolist()), strict=True))


def _latencies(bench: BenchResult, ttft_s: Floats, itls: tuple[Floats, ...]) -> Floats:
    """Returns the whole requests' times [s]; older versions write none, but all the gaps of each."""
    if "latencies" in bench.scalars:
        return _floats(bench, "latencies", bench.items("latencies"))
    if not itls:
        raise TraceError(bench.path, None, "has neither `latencies` nor `itls`: how long requests took")
    latencies: Floats = ttft_s + np.array([gaps.sum() for gaps in itls])
    return latencies


def _scalar_itl(bench: BenchResult) -> dict[str, float]:
    found = {ours: bench.scalars.get(f"{theirs}_itl_ms") for ours, theirs in _SCALARS.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _scalar(bench: BenchResult, name: str) -> float:
    value = bench.scalars.get(name)
    if not isinstance(value, int | float) or not value > 0:
        raise TraceError(bench.path, None, f"{name} must be a number above 0 (got {value!r})")
    return float(value)


def _optional(bench: BenchResult, name: str) -> list[Any]:
    return bench.items(name) if bench.scalars.get(name) is not None else []


def _floats(bench: BenchResult, name: str, values: object) -> Floats:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TraceError(bench.path, None, f"{name} must hold numbers") from None
