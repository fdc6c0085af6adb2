"""Arrival instants, drawn at once for all requests of a workload.

Every open process is a renewal process of rate 1 in its own time (Gamma gaps of mean 1), carried over to
seconds through the inverse of the mean number of arrivals up to an instant; a constant rate is the straight
line of these. Source: time rescaling of point processes, e.g. Daley and Vere-Jones, An Introduction to the
Theory of Point Processes, vol. 1, section 7.4.
"""

from __future__ import annotations

import math
from typing import NamedTuple, assert_never

import numpy as np

from .arrival_spec import (
    ArrivalSpec,
    BurstArrivals,
    ClosedLoopArrivals,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    RampArrivals,
)
from .demand import FloatColumn


class Extent(NamedTuple):
    """How much to draw: `num_requests`, or without them all that arrive before `duration_s`."""

    num_requests: int | None
    duration_s: float = math.inf


def arrival_times(spec: ArrivalSpec, rng: np.random.Generator, extent: Extent) -> FloatColumn:
    """Returns never decreasing arrival instants [s] from 0 on; all 0 for a burst and a closed loop."""
    match spec:
        case PoissonArrivals():
            return _renewals(rng, extent, spec.request_rate, 1.0, rescale=spec.rescale_to_rate)
        case GammaArrivals():
            rate, burstiness = spec.request_rate, spec.burstiness
            return _renewals(rng, extent, rate, burstiness, rescale=spec.rescale_to_rate)
        case ConstantArrivals():
            return _constant(extent, spec.request_rate)
        case RampArrivals():
            return _ramp(spec, rng, extent)
        case BurstArrivals() | ClosedLoopArrivals():
            return np.zeros(extent.num_requests or 0)
        case _:
            assert_never(spec)


def _renewals(
    rng: np.random.Generator, extent: Extent, request_rate: float, burstiness: float, *, rescale: bool
) -> FloatColumn:
    times = _unit_renewals(rng, burstiness, extent.num_requests, extent.duration_s * request_rate)
    times /= request_rate
    if rescale and times[-1] > 0:
        # As `vllm bench serve` does without a ramp: n requests span exactly n / request_rate.
        times *= len(times) / request_rate / times[-1]
    return times


def _unit_renewals(
    rng: np.random.Generator, burstiness: float, count: int | None, horizon: float
) -> FloatColumn:
    """Returns instants with independent Gamma gaps of mean 1: `count` of them, or all below `horizon`."""
    if count is not None:
        return _cumulated_gaps(rng, burstiness, count)
    # Six standard deviations above the mean number: a second draw is rare, and as good.
    size = int(horizon + 6 * np.sqrt(horizon / burstiness)) + 16
    parts = [_cumulated_gaps(rng, burstiness, size)]
    while parts[-1][-1] < horizon:
        parts.append(parts[-1][-1] + _cumulated_gaps(rng, burstiness, size))
    times = np.concatenate(parts)
    return times[: np.searchsorted(times, horizon)]


def _cumulated_gaps(rng: np.random.Generator, burstiness: float, size: int) -> FloatColumn:
    gaps = rng.standard_gamma(burstiness, size)
    gaps /= burstiness
    return np.cumsum(gaps, out=gaps)


def _constant(extent: Extent, request_rate: float) -> FloatColumn:
    if extent.num_requests is not None:
        return np.arange(extent.num_requests) / request_rate
    times = np.arange(int(extent.duration_s * request_rate) + 1) / request_rate
    return times[times < extent.duration_s]


def _ramp(spec: RampArrivals, rng: np.random.Generator, extent: Extent) -> FloatColumn:
    """Returns arrivals whose rate runs from the start to the end rate, then stays.

    Mean number of arrivals up to t <= T, with rates a and b and L = ln(b / a):
    linear a t + (b - a) t^2 / 2T, in all T (a + b) / 2; exponential a T / L (e^(L t / T) - 1), in all
    T (b - a) / L. `vllm bench serve` ramps over the index of the request, not over time.
    """
    start, end = spec.start_request_rate, spec.end_request_rate
    log_ratio = np.log1p((end - start) / start)
    mean_rate = (start + end) / 2 if spec.strategy == "linear" else (end - start) / log_ratio
    count, span_s = extent
    if count is not None:
        span_s = count / mean_rate
    numbers = _unit_renewals(rng, spec.burstiness, count, span_s * mean_rate)
    within = np.minimum(numbers, span_s * mean_rate)
    if spec.strategy == "linear":
        root = np.sqrt(np.maximum(start**2 + 2 * (end - start) * within / span_s, 0.0))
        times = 2 * within / (start + root)
    else:
        times = span_s / log_ratio * np.log1p(within * log_ratio / (start * span_s))
    times += (numbers - within) / end
    # Rounding may turn two instants that are an ulp apart around.
    return np.maximum.accumulate(times)
