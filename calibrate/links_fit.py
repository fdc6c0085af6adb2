"""Fits the regimes of `hwmodels.link_profile` to measured links; needs no GPU.

For given edges the time is linear in the latency and in the seconds per byte of each regime, so bounded least
squares on relative errors has one solution; edges are powers of two, and all choices of them are tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from ..hwmodels.fitted import FittedCoefficient
from ..hwmodels.link_profile import LinkEntry, LinkHeldOut, LinkMode, LinkModel, LinkRegime
from ..units import US
from .fit import CONFIDENCE_Z, round_significant
from .links_samples import LinkSample

Array = NDArray[np.float64]
LinkKey = tuple[str, str, LinkMode, int]
"""Collective, implementation, mode and number of GPUs: what one fit is for."""

MAX_REGIMES = 4
# A regime more must lower the held-out error by this share, or it is noise that it follows.
WORTH = 0.1
GOOD_ENOUGH = 1e-3  # no regime more where the error is below this: no measurement is as exact
MIN_SAMPLES = 6
SAMPLES_PER_COEFFICIENT = 2
FOLDS = 5
# A noisy median still tells the time if it spreads by less than this; what Python launches always spreads.
LARGEST_SPREAD = 0.1
# Relative error beyond which a point counts linearly, not by its square.
OUTLIER = 0.05
# No first byte is faster than this, no regime faster than that: both mean "not seen".
MIN_LATENCY_S, MAX_BYTES_PER_S = 1e-8, 1e15


@dataclass(frozen=True, slots=True)
class _Solution:
    """edges: where regimes begin, 0 first. values: latency [s] and s per byte of each regime."""

    edges: tuple[float, ...]
    values: Array
    cost: float

    def seconds(self, sizes: Array) -> Array:
        return np.asarray(_design(sizes, self.edges) @ self.values)


def fit_links(samples: Iterable[LinkSample]) -> list[LinkEntry]:
    """Returns an entry per collective, implementation, mode and GPU count with samples enough, sorted."""
    groups: defaultdict[LinkKey, list[LinkSample]] = defaultdict(list)
    for sample in samples:
        if sample.is_usable and (not sample.is_noisy or sample.spread <= LARGEST_SPREAD):
            point = sample.point
            groups[point.collective, point.implementation, point.mode, point.num_gpus].append(sample)
    entries: list[LinkEntry] = []
    for key in sorted(groups):
        group = sorted(groups[key], key=lambda sample: sample.point.num_bytes)
        if len(group) >= MIN_SAMPLES:
            entries.append(_entry(key, group, entries))
    return entries


def _entry(key: LinkKey, group: Sequence[LinkSample], earlier: Sequence[LinkEntry]) -> LinkEntry:
    """Returns the fit of samples in the order of sizes; earlier: entries of fewer GPUs among others."""
    sizes = np.array([sample.point.num_bytes for sample in group], dtype=np.float64)
    times = np.array([sample.time_us * US for sample in group])
    num_regimes, left_out = _num_regimes(sizes, times)
    solution = _solve(sizes, times, num_regimes)
    sigmas = _sigmas(solution, sizes, times)
    collective, implementation, mode, num_gpus = key
    return LinkEntry(
        collective=collective,
        implementation=implementation,
        num_gpus=num_gpus,
        mode=mode,
        latency_s=_coefficient(solution.values[0], sigmas[0]),
        regimes=tuple(_regimes(solution, sigmas)),
        valid_bytes=(float(sizes[0]), float(sizes[-1])),
        num_samples=len(group),
        held_out=LinkHeldOut(
            median=round_significant(float(np.median(left_out))),
            p90=round_significant(float(np.quantile(left_out, 0.9))),
            worst=round_significant(float(left_out.max())),
            num_samples=len(left_out),
            fewer_gpus=_fewer_gpus(key, sizes, times, earlier),
        ),
    )


def _num_regimes(sizes: Array, times: Array) -> tuple[int, Array]:
    """Returns how many regimes the samples show, and the relative errors of left-out sizes with that many."""
    best, errors = 1, held_out_errors(sizes, times, 1)
    for number in range(2, MAX_REGIMES + 1):
        if errors.mean() < GOOD_ENOUGH or len(sizes) < SAMPLES_PER_COEFFICIENT * 2 * number:
            break
        more = held_out_errors(sizes, times, number)
        if more.mean() < (1 - WORTH) * errors.mean():
            best, errors = number, more
    return best, errors


def held_out_errors(sizes: Array, times: Array, num_regimes: int) -> Array:
    """Returns |predicted / measured - 1| of every size but the ends, each left out of the fit with a fifth.

    The smallest and the largest size stay in: they set the range for which the fit is valid.
    """
    places = np.arange(len(sizes))
    inner = places[1:-1]
    errors = np.empty(len(sizes))
    for fold in range(FOLDS):
        unseen = inner[inner % FOLDS == fold]
        seen = np.setdiff1d(places, unseen)
        solution = _solve(sizes[seen], times[seen], num_regimes)
        errors[unseen] = np.abs(solution.seconds(sizes[unseen]) / times[unseen] - 1)
    return errors[inner]


def _solve(sizes: Array, times: Array, num_regimes: int) -> _Solution:
    """Returns the best fit over all choices of edges; the first of equally good ones."""
    solutions = (_solve_for(sizes, times, edges) for edges in _edge_choices(sizes, num_regimes))
    return min(solutions, key=lambda solution: solution.cost)


def _edge_choices(sizes: Array, num_regimes: int) -> Iterator[tuple[float, ...]]:
    """Yields powers of two as inner edges, so that each regime holds two sizes at least."""
    low, high = int(np.log2(sizes[0])) + 1, int(np.log2(sizes[-1]))
    powers = [float(2**power) for power in range(low, high + 1)]
    for inner in combinations(powers, num_regimes - 1):
        counts = np.diff(np.searchsorted(sizes, (0.0, *inner, np.inf)))
        if counts.min() >= SAMPLES_PER_COEFFICIENT:
            yield (0.0, *inner)


def _solve_for(sizes: Array, times: Array, edges: tuple[float, ...]) -> _Solution:
    """Returns the least-squares fit of relative errors, every coefficient above its bound."""
    relative = _design(sizes, edges) / times[:, None]
    least = np.array([MIN_LATENCY_S, *[1 / MAX_BYTES_PER_S] * len(edges)])
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    above, _ = nnls(relative / scale, 1 - relative @ least)
    values = least + above / scale
    residuals = relative @ values - 1
    cost = float((OUTLIER**2 * (np.sqrt(1 + (residuals / OUTLIER) ** 2) - 1)).sum())
    return _Solution(edges, values, cost)


def _sigmas(solution: _Solution, sizes: Array, times: Array) -> Array:
    """Returns the standard error of each value, its edges taken as given."""
    relative = _design(sizes, solution.edges) / times[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    scaled, residuals = relative / scale, relative @ solution.values - 1
    freedom = max(1, len(sizes) - len(solution.values))
    covariance = np.linalg.pinv(scaled.T @ scaled) * float(residuals @ residuals) / freedom
    return np.asarray(np.sqrt(np.diag(covariance)) / scale)


def _design(sizes: Array, edges: tuple[float, ...]) -> Array:
    """Returns a row per size: 1 for the latency, and the bytes that fall into each regime."""
    ends = (*edges[1:], np.inf)
    spans = [np.clip(sizes, low, high) - low for low, high in zip(edges, ends, strict=True)]
    return np.stack([np.ones_like(sizes), *spans], axis=1)


def _regimes(solution: _Solution, sigmas: Array) -> Iterator[LinkRegime]:
    for edge, value, sigma in zip(solution.edges, solution.values[1:], sigmas[1:], strict=True):
        slope = _coefficient(value, sigma)
        yield LinkRegime(
            from_bytes=edge,
            bytes_per_s=FittedCoefficient(
                value=round_significant(1 / value),
                low=round_significant(1 / slope.high),
                high=round_significant(min(1 / slope.low, MAX_BYTES_PER_S)),
            ),
        )


def _coefficient(value: float, sigma: float) -> FittedCoefficient:
    """Returns a coefficient with its interval; one that the samples do not show has a wide one."""
    factor = float(np.exp(min(CONFIDENCE_Z * sigma / value, 20.0)))
    low, middle, high = (round_significant(float(each)) for each in (value / factor, value, value * factor))
    return FittedCoefficient(value=middle, low=low, high=high)


def _fewer_gpus(key: LinkKey, sizes: Array, times: Array, earlier: Sequence[LinkEntry]) -> float | None:
    """Returns the median error where smaller GPU counts alone predict these samples."""
    collective, implementation, mode, num_gpus = key
    smaller = [
        entry
        for entry in earlier
        if (entry.collective, entry.implementation, entry.mode) == key[:3] and 1 < entry.num_gpus < num_gpus
    ]
    if not smaller:
        return None
    model = LinkModel(smaller)
    predicted = [
        model.predict(collective, implementation, num_bytes=float(size), num_gpus=num_gpus, mode=mode).time_s
        for size in sizes
    ]
    return round_significant(float(np.median(np.abs(np.array(predicted) / times - 1))))
