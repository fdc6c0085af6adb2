"""Fits the power limit of `hwmodels.power` to measured sequences of steps; needs no GPU.

Each sequence is played through the model from rest, and the constants are those whose step times come
closest. Errors are relative; beyond a percent they count linearly, since a step is fast or slow by when the
driver happened to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ..errors import CalibrationError
from ..hwmodels.power import PowerLimit, PowerState
from ..hwmodels.profile_schema import PowerEntry, PowerHeldOut
from .fit import round_significant
from .power_samples import PowerSample

Array = NDArray[np.float64]

# Relative error beyond which a step counts linearly, not by its square.
OUTLIER = 0.01
# A graph's time at full clock is its fastest steps': this share of them. A graph must be short enough to end
# before the clock falls.
FASTEST = 0.005
MIN_SEQUENCES = 3  # one left out, and two that tell the fall of the clock from its rise
# Where the search starts, and between what it looks.
_START = PowerLimit(0.86, 0.1, 0.05, 0.3, 0.6)
_LOW = PowerLimit(0.5, 1e-4, 1e-3, 1e-3, 1e-3)
_HIGH = PowerLimit(0.999, 0.5, 1.0, 10.0, 10.0)
# Far below the six digits that are kept, so that they are the same on every machine.
_TOLERANCE = 1e-12


class _Step(NamedTuple):
    """A step as it ran: its times [s] at full clock and as measured, and the pause before it [s]."""

    matrix_s: float
    other_s: float
    pause_s: float
    time_s: float


Sequences = Mapping[str, Sequence[_Step]]


def fit_power(samples: Sequence[PowerSample], source: str) -> PowerEntry:
    """Returns the constants of the power limit, and their errors on sequences left out.

    Raises: CalibrationError, one line, for fewer sequences with prefill than a fit needs.
    """
    sequences = _sequences(samples)
    if len(sequences) < MIN_SEQUENCES:
        raise CalibrationError(
            f"the power limit needs {MIN_SEQUENCES} sequences with prefill steps, got {len(sequences)}"
        )
    limit = _solve(sequences)
    return PowerEntry(
        source=source,
        full_clock_ratio=round_significant(limit.full_clock_ratio),
        other_slowdown=round_significant(limit.other_slowdown),
        reaction_s=round_significant(limit.reaction_s),
        busy_headroom=round_significant(limit.busy_headroom),
        idle_headroom=round_significant(limit.idle_headroom),
        num_samples=sum(map(len, sequences.values())),
        held_out=_held_out(sequences),
    )


def full_clock_ms(samples: Sequence[PowerSample]) -> dict[str, float]:
    """Returns the time of every graph at full clock: that of its fastest steps [ms]."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        times[sample.graph].append(sample.time_ms)
    return {graph: float(np.quantile(values, FASTEST)) for graph, values in times.items()}


def play(limit: PowerLimit, samples: Sequence[PowerSample]) -> dict[str, list[float]]:
    """Returns the times [s] of the steps of every sequence with prefill, as the model has them."""
    return {name: _times_s(limit, steps) for name, steps in _sequences(samples).items()}


def _sequences(samples: Sequence[PowerSample]) -> dict[str, list[_Step]]:
    """Returns the steps of the sequences that hold matrix work; others say nothing about the clock."""
    full_s = {graph: time_ms * 1e-3 for graph, time_ms in full_clock_ms(samples).items()}
    found = {}
    for name, rows in groupby(samples, key=lambda sample: sample.sequence):
        steps = []
        for row in rows:
            matrix_s = row.matrix_share * full_s[row.graph]
            steps.append(_Step(matrix_s, full_s[row.graph] - matrix_s, row.pause_s, row.time_ms * 1e-3))
        if any(step.matrix_s for step in steps):
            found[name] = steps
    return found


def _times_s(limit: PowerLimit, steps: Sequence[_Step]) -> list[float]:
    state, times = PowerState(limit), []
    for matrix_s, other_s, pause_s, _ in steps:
        state.rest(pause_s)
        times.append(matrix_s + other_s + state.added_s(matrix_s, other_s))
    return times


def _solve(sequences: Sequences) -> PowerLimit:
    """Returns the constants by least squares; all sequences count alike, and steps in them by their time."""
    measured = [np.array([step.time_s for step in steps]) for steps in sequences.values()]
    weights = np.concatenate([np.sqrt(times / times.sum()) for times in measured])

    def residuals(logs: Array) -> Array:
        limit = _limit(logs)
        pairs = zip(sequences.values(), measured, strict=True)
        errors = np.concatenate([np.array(_times_s(limit, steps)) / times - 1 for steps, times in pairs])
        return weights * _soft(errors)

    solution = least_squares(
        residuals, _logs(_START), bounds=(_logs(_LOW), _logs(_HIGH)),
        x_scale="jac", xtol=_TOLERANCE, ftol=_TOLERANCE, gtol=_TOLERANCE, max_nfev=100,
    )  # fmt: skip
    return _limit(solution.x)


def _soft(errors: Array) -> Array:
    """Returns what squares to twice the soft L1 norm of errors: errors^2 where small, linear where large."""
    ratios = errors / OUTLIER
    return np.asarray(np.sign(errors) * OUTLIER * np.sqrt(2 * (np.sqrt(1 + ratios**2) - 1)))


def _logs(limit: PowerLimit) -> Array:
    """Returns the logarithms of the constants, of which all are positive."""
    return np.log(
        [
            limit.full_clock_ratio,
            limit.other_slowdown,
            limit.reaction_s,
            limit.busy_headroom,
            limit.idle_headroom,
        ]
    )


def _limit(logs: Array) -> PowerLimit:
    return PowerLimit(*map(float, np.exp(logs)))


def _held_out(sequences: Sequences) -> PowerHeldOut:
    """Returns the errors of every sequence under the constants that all others give.

    Of steps: the median over sequences of each one's median. Of whole sums: the median over sequences.
    """
    of_steps, of_sums = [], []
    for name, steps in sequences.items():
        limit = _solve({other: sequences[other] for other in sequences if other != name})
        predicted, measured = np.array(_times_s(limit, steps)), np.array([step.time_s for step in steps])
        of_steps.append(float(np.median(np.abs(predicted / measured - 1))))
        of_sums.append(abs(float(predicted.sum() / measured.sum()) - 1))
    return PowerHeldOut(
        step=round_significant(float(np.median(of_steps))),
        sequence=round_significant(float(np.median(of_sums))),
        num_sequences=len(sequences),
    )
