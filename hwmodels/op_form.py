"""What a formula for one kind of operation is: features of a point, coefficients, the seconds that follow.

The same formula serves the fit (many measured points) and the predictor (one row). No table of answers: every
term is work over a rate. A coefficient that measurements do not show is left out of the fitted file, and its
term then vanishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .device import DeviceSpec
from .op_point import OpPoint

Array = NDArray[np.float64]
Features = Mapping[str, Array]
Coefficients = Mapping[str, float]

NEVER = np.inf  # a rate at which work takes no time

# How sharply two terms meet that do not overlap by chance: 9 % more than either where they are equal.
CORNER = 8.0

# Clocks may exceed the one of the datasheet's peak where a kernel leaves power for it.
# Source: nvidia-smi on H200: 1,980 MHz at most, 8 % above the 1,830 MHz of the peak.
BOOST = 1.1


class Priced(NamedTuple):
    """Times of points [s], and the seconds of every resource that takes part in them, by its name.

    parts: `matrix`, `vector`, `l2`, `hbm`, `power`, `latency` (one CTA's dependent steps) and `launch`
    (launches, fills, drains and reductions), each alone; the largest is what binds.
    """

    seconds: Array
    parts: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A rate, time, share or exponent of a form: unit, where a fit starts, and the bounds that physics sets.

    absent: the value at which its term vanishes, None if the form needs it. roof: the rate of the device that
    bounds it from above, if one does.
    """

    name: str
    unit: str
    initial: float
    low: float
    high: float
    meaning: str
    absent: float | None = None
    roof: Literal["matrix", "hbm"] | None = None

    def bounds(self, device: DeviceSpec, dtype: str) -> tuple[float, float]:
        """Returns the smallest and the largest value that a fit may give it on a device."""
        if self.roof is None:
            return self.low, self.high
        rates = device.matrix_flops_per_s
        matrix = BOOST * rates.get(dtype, max(rates.values()))
        return self.low, {"matrix": matrix, "hbm": device.hbm_bytes_per_s}[self.roof]


@dataclass(frozen=True, slots=True)
class Form:
    """One formula: what it needs of points that share op, implementation and dtype, and what they cost.

    power_limit: coefficients of the power limit, which does not bind in the first ms after a pause.
    """

    name: str
    coefficients: tuple[Coefficient, ...]
    features: Callable[[Sequence[OpPoint], DeviceSpec], Features]
    price: Callable[[Features, Coefficients], Priced]
    power_limit: frozenset[str] = frozenset()

    @property
    def absent(self) -> dict[str, float]:
        """The coefficients that a fit may leave out, and the values that stand for them then."""
        return {one.name: one.absent for one in self.coefficients if one.absent is not None}

    def seconds(self, features: Features, coefficients: Coefficients) -> Array:
        """Returns the times of points under the coefficients that are known."""
        return self.price(features, self.absent | dict(coefficients)).seconds

    def bounds(self, features: Features, coefficients: Coefficients) -> list[str]:
        """Returns what binds each point: the resource that alone would take longest."""
        parts = self.price(features, self.absent | dict(coefficients)).parts
        names = list(parts)
        largest = np.argmax(np.stack([parts[name] for name in names]), axis=0)
        return [names[place] for place in largest]


def smooth_max(exponent: float, *terms: Array) -> Array:
    """Returns (sum of terms^p)^(1/p): the largest where one dominates, more where several are equal.

    p = 1 is no overlap, p -> infinity perfect overlap. Monotone in every term and smooth everywhere.
    """
    largest = np.maximum.reduce(terms)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(scale * sum((term / scale) ** exponent for term in terms) ** (1 / exponent))


def column(points: Sequence[OpPoint], name: str) -> Array:
    """Returns one size of all points as floats."""
    return np.array([getattr(point, name) for point in points], dtype=np.float64)


def power_of_two(values: Array, low: int, high: int) -> Array:
    """Returns the powers of two at or above values, within bounds that are powers of two."""
    return np.asarray(2.0 ** np.ceil(np.log2(np.clip(values, low, high))))


LAUNCH = Coefficient(
    "launch_s", "s", 3e-6, 2e-7, 3e-5, "launch, first loads and last stores of one kernel inside a CUDA graph"
)
OVERLAP = Coefficient(
    "overlap", "exponent", 4.0, 1.0, 40.0, "how well traffic hides behind arithmetic: 1 not at all"
)
HBM = Coefficient("hbm_bytes_per_s", "B/s", 4e12, 2e11, 1e13, "streams from HBM", roof="hbm")
MATRIX = Coefficient(
    "matrix_flops_per_s", "FLOP/s", 9e14, 1e13, 3e15, "matrix units on full tiles", roof="matrix"
)
