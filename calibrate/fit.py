"""Fits the coefficients of the formulas in `hwmodels.op_model` to measured samples; needs no GPU.

Robust least squares on the logarithm of time, so that every point counts by its relative error and an outlier
by less than its square. Coefficients are fitted as logarithms: all are positive. What the samples do not show
is left out, one after the other, so that every coefficient of a fit is known by them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_form import Coefficient, Features, Form
from ..hwmodels.op_model import FORM_OF_OP, form_of
from ..hwmodels.op_point import OpPoint
from ..hwmodels.op_profile import SIZES
from ..units import US
from .samples import Sample

Array = NDArray[np.float64]
Key = tuple[str, str, str]
"""Op, implementation and dtype: what one fit is for."""

# Relative error beyond which a point counts linearly, not by its square.
OUTLIER = 0.05
CONFIDENCE_Z = 1.96  # 95 % of a normal distribution
SIGNIFICANT_DIGITS = 6
# Samples for each coefficient that a form cannot do without.
MIN_SAMPLES_PER_COEFFICIENT = 2
# Other starts that are looked at for the rates, as factors on the first: the surface has several valleys.
_STARTS = (1.0, 0.5, 2.0)
_LOOK_EVALUATIONS, _MAX_EVALUATIONS = 12, 150
_TOLERANCE = 1e-7  # relative gain at which a search ends
# What a coefficient that the samples do not show is known by: nothing, so that its interval is its bounds.
_RIDGE = 1e-9
# An interval that comes this close to a value holds it.
_CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class Fitted:
    """One coefficient: its value, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OpFit:
    """The coefficients of one op, implementation and dtype that its samples show.

    valid: smallest and largest measured sizes.
    """

    form: str
    coefficients: Mapping[str, Fitted]
    valid: Mapping[str, tuple[float, float]]
    num_samples: int

    @property
    def values(self) -> dict[str, float]:
        """The coefficients by name."""
        return {name: fitted.value for name, fitted in self.coefficients.items()}


@dataclass(frozen=True, slots=True)
class Measured:
    """Samples of one op, implementation and dtype, ready to fit. logs: of their times [s]."""

    form: Form
    device: DeviceSpec
    points: Sequence[OpPoint]
    features: Features
    logs: Array

    @classmethod
    def of(cls, samples: Sequence[Sample], device: DeviceSpec) -> Measured:
        """Returns the samples with their features."""
        form, points = form_of(samples[0].point.op), [sample.point for sample in samples]
        logs = np.log([sample.time_us * US for sample in samples])
        return cls(form, device, points, form.features(points, device), logs)

    def take(self, places: Sequence[int]) -> Measured:
        """Returns some of the samples."""
        features = {
            name: values[places] if len(values) == len(self.points) else values
            for name, values in self.features.items()
        }
        points = [self.points[place] for place in places]
        return replace(self, points=points, features=features, logs=self.logs[places])

    def predict_s(self, fit: OpFit) -> Array:
        """Returns the times [s] that a fit gives."""
        return self.form.seconds(self.features, fit.values)


@dataclass(frozen=True, slots=True)
class _Solution:
    """Logarithms of coefficients and of the ends of their intervals, and what is left of the residuals."""

    coefficients: tuple[Coefficient, ...]
    values: Array
    lows: Array
    highs: Array
    cost: float


def by_key(samples: Iterable[Sample]) -> dict[Key, list[Sample]]:
    """Returns the usable samples of ops that have a formula, by key, in an order of their own."""
    groups: defaultdict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.is_usable and sample.point.op in FORM_OF_OP:
            point = sample.point
            groups[point.op, point.implementation, point.dtype].append(sample)
    return {key: sorted(groups[key], key=lambda sample: repr(sample.point)) for key in sorted(groups)}


def fit_samples(samples: Sequence[Sample], device: DeviceSpec) -> OpFit:
    """Returns the fit of samples that share op, implementation and dtype; noisy ones are left out.

    Raises: CalibrationError if there are too few of them.
    """
    steady = [sample for sample in samples if not sample.is_noisy]
    return fit_measured(Measured.of(steady or samples, device))


def fit_measured(measured: Measured, *, near: OpFit | None = None) -> OpFit:
    """Returns the fit of samples, each of which counts.

    near: a fit of much the same samples, to start from; else several starts are tried.
    Raises: CalibrationError if they are too few.
    """
    form, num_samples = measured.form, len(measured.points)
    needed = MIN_SAMPLES_PER_COEFFICIENT * (len(form.coefficients) - len(form.absent))
    if num_samples < needed:
        point = measured.points[0]
        raise CalibrationError(
            f"{point.op} {point.implementation} {point.dtype}: {num_samples} samples, fitting needs {needed}"
        )
    solution = _solve(measured, form.coefficients, start_at=None if near is None else near.values)
    while (unseen := _least_seen(solution)) is not None:
        kept = tuple(one for one in solution.coefficients if one.name != unseen)
        start_at = {
            one.name: float(np.exp(log))
            for one, log in zip(solution.coefficients, solution.values, strict=True)
        }
        solution = _solve(measured, kept, start_at=start_at)
    ends = zip(solution.coefficients, solution.values, solution.lows, solution.highs, strict=True)
    coefficients = {
        one.name: Fitted(*(round_significant(float(np.exp(log))) for log in (value, low, high)))
        for one, value, low, high in ends
    }
    return OpFit(form.name, coefficients, valid_ranges(measured.points), num_samples)


def _solve(
    measured: Measured, coefficients: tuple[Coefficient, ...], *, start_at: Mapping[str, float] | None
) -> _Solution:
    """Returns the best solution from several starts, or the one from the values that are given."""
    dtype = measured.points[0].dtype
    low, high = np.log([one.bounds(measured.device, dtype) for one in coefficients]).T
    residuals = _residuals(measured, coefficients)

    def search(start: Array, max_nfev: int) -> Any:
        return least_squares(
            residuals, np.clip(start, low, high), bounds=(low, high),
            loss="soft_l1", f_scale=OUTLIER, max_nfev=max_nfev, x_scale="jac", ftol=_TOLERANCE,
        )  # fmt: skip

    start = np.log([(start_at or {}).get(one.name, one.initial) for one in coefficients])
    if start_at is None:
        is_rate = np.array([one.unit.endswith("/s") for one in coefficients])
        looks = [search(start + is_rate * np.log(factor), _LOOK_EVALUATIONS) for factor in _STARTS]
        start = min(looks, key=lambda look: float(look.cost)).x
    best = search(start, _MAX_EVALUATIONS)
    error = CONFIDENCE_Z * _standard_errors(best.jac, float(best.cost), len(measured.points))
    lows, highs = np.clip(best.x - error, low, high), np.clip(best.x + error, low, high)
    return _Solution(coefficients, best.x, lows, highs, float(best.cost))


def _residuals(measured: Measured, coefficients: Sequence[Coefficient]) -> Callable[[Array], Array]:
    """Returns what turns logarithms of coefficients into relative errors, predicted over measured."""
    form, names = measured.form, [one.name for one in coefficients]

    def residuals(logs: Array) -> Array:
        values = dict(zip(names, np.exp(logs), strict=True))
        return np.log(form.seconds(measured.features, values)) - measured.logs

    return residuals


def _standard_errors(jacobian: Array, cost: float, num_points: int) -> Array:
    """Returns the standard errors of the logarithms, from the curvature at the solution."""
    num_names = jacobian.shape[1]
    variance = 2 * cost / max(1, num_points - num_names)
    information = jacobian.T @ jacobian + _RIDGE * np.eye(num_names)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(information)) * variance))


def _least_seen(solution: _Solution) -> str | None:
    """Returns the coefficient of the widest interval among those that might as well be absent."""
    unseen = {}
    for place, one in enumerate(solution.coefficients):
        if one.absent is None:
            continue
        low, high = solution.lows[place], solution.highs[place]
        with np.errstate(divide="ignore"):
            absent = np.clip(np.log(one.absent), np.log(one.low), np.log(one.high))
        if low - _CLOSE <= absent <= high + _CLOSE:
            unseen[one.name] = high - low
    return max(unseen, key=unseen.__getitem__) if unseen else None


def round_significant(value: float) -> float:
    """Returns the value with six significant digits, so that the same samples give the same bytes."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def valid_ranges(points: Sequence[OpPoint]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest value of every size that the points have."""
    ranges = {name: [getattr(point, name) for point in points] for name in SIZES}
    return {name: (min(values), max(values)) for name, values in ranges.items() if max(values) > 0}


def predict_s(fit: OpFit, points: Sequence[OpPoint], device: DeviceSpec) -> Array:
    """Returns the times [s] that a fit gives for points of its op."""
    form = form_of(points[0].op)
    return form.seconds(form.features(points, device), fit.values)
