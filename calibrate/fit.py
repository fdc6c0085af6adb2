"""Fits the coefficients of the formulas in `hwmodels.op_model` to measured samples; needs no GPU.

Robust least squares on the logarithm of time, so that every point counts by its relative error and an outlier
by less than its square. Coefficients are fitted as logarithms: all are positive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_model import Form, form_of
from ..hwmodels.op_point import OpPoint
from ..units import US
from .samples import Sample

Array = NDArray[np.float64]
Key = tuple[str, str, str]
"""Op, implementation and dtype: what one fit is for."""

# Relative error beyond which a point counts linearly, not by its square.
OUTLIER = 0.05
CONFIDENCE_Z = 1.96  # 95 % of a normal distribution
SIGNIFICANT_DIGITS = 6
MIN_SAMPLES_PER_COEFFICIENT = 1
# Other starts that are tried for the rates, as factors on the first: the surface has several valleys.
_STARTS = (1.0, 0.5, 2.0)
_MAX_EVALUATIONS = 150
# What a coefficient that the samples do not show is known by: nothing, so that its interval is its bounds.
_RIDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Fitted:
    """One coefficient: its value, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OpFit:
    """The coefficients of one op, implementation and dtype. valid: smallest and largest measured sizes."""

    form: str
    coefficients: Mapping[str, Fitted]
    valid: Mapping[str, tuple[float, float]]
    num_samples: int

    @property
    def values(self) -> dict[str, float]:
        """The coefficients by name."""
        return {name: fitted.value for name, fitted in self.coefficients.items()}


def by_key(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """Returns the usable samples by op, implementation and dtype, in an order of their own."""
    groups: defaultdict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.is_usable:
            point = sample.point
            groups[point.op, point.implementation, point.dtype].append(sample)
    return {key: sorted(groups[key], key=lambda sample: repr(sample.point)) for key in sorted(groups)}


def fit_samples(samples: Sequence[Sample], device: DeviceSpec) -> OpFit:
    """Returns the fit of samples that share op, implementation and dtype; noisy ones are left out.

    Raises: CalibrationError if there are too few of them.
    """
    steady = [sample for sample in samples if not sample.is_noisy]
    form = form_of(samples[0].point.op)
    needed = MIN_SAMPLES_PER_COEFFICIENT * len(form.coefficients)
    if len(steady) < needed:
        point = samples[0].point
        raise CalibrationError(
            f"{point.op} {point.implementation} {point.dtype}: {len(steady)} samples, fitting needs {needed}"
        )
    points = [sample.point for sample in steady]
    logs = np.log([sample.time_us * US for sample in steady])
    values, errors = _solve(form, points, logs, device)
    coefficients = {
        coefficient.name: _fitted(value, error, (coefficient.low, coefficient.high))
        for coefficient, value, error in zip(form.coefficients, values, errors, strict=True)
    }
    return OpFit(form.name, coefficients, valid_ranges(points), len(steady))


def _solve(form: Form, points: Sequence[OpPoint], logs: Array, device: DeviceSpec) -> tuple[Array, Array]:
    """Returns the logarithms of the coefficients and their standard errors."""
    features = form.features(points, device)
    names = [coefficient.name for coefficient in form.coefficients]
    low, high, start = (
        np.log([getattr(coefficient, bound) for coefficient in form.coefficients])
        for bound in ("low", "high", "initial")
    )

    def residuals(theta: Array) -> Array:
        return np.log(form.seconds(features, dict(zip(names, np.exp(theta), strict=True)))) - logs

    is_rate = np.array([coefficient.unit.endswith("/s") for coefficient in form.coefficients])
    solutions = [
        least_squares(
            residuals, np.clip(start + is_rate * np.log(factor), low, high), bounds=(low, high),
            loss="soft_l1", f_scale=OUTLIER, max_nfev=_MAX_EVALUATIONS, x_scale="jac",
        )
        for factor in _STARTS
    ]  # fmt: skip
    best = min(solutions, key=lambda solution: float(solution.cost))
    freedom = max(1, len(points) - len(names))
    variance = 2 * float(best.cost) / freedom
    information = best.jac.T @ best.jac + _RIDGE * np.eye(len(names))
    return best.x, np.sqrt(np.diag(np.linalg.inv(information)) * variance)


def _fitted(log_value: float, log_error: float, bounds: tuple[float, float]) -> Fitted:
    """Returns a coefficient with its interval, none of them beyond the bounds."""
    low, high = (
        float(np.clip(np.exp(np.clip(log_value + sign * CONFIDENCE_Z * log_error, -80, 80)), *bounds))
        for sign in (-1, 1)
    )
    return Fitted(*(round_significant(value) for value in (float(np.exp(log_value)), low, high)))


def round_significant(value: float) -> float:
    """Returns the value with six significant digits, so that the same samples give the same bytes."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def valid_ranges(points: Sequence[OpPoint]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest value of every size that the points have."""
    names = (
        "m", "n", "k", "batch", "query_len", "context_len", "num_q_heads", "num_kv_heads", "head_dim",
        "num_experts", "top_k",
    )  # fmt: skip
    ranges = {name: [getattr(point, name) for point in points] for name in names}
    return {name: (min(values), max(values)) for name, values in ranges.items() if max(values) > 0}


def predict_s(fit: OpFit, points: Sequence[OpPoint], device: DeviceSpec) -> Array:
    """Returns the times [s] that a fit gives for points of its op."""
    form = form_of(points[0].op)
    return form.seconds(form.features(points, device), fit.values)
