"""From axes to combinations: which fields take which values together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from ...errors import Problem, ScenarioError
from .study_spec import AxisSpec, LogRangeSpec, RangeSpec

# Enough that 0.1 steps come out as typed, 0.3 and not 0.30000000000000004.
_SIGNIFICANT_DIGITS = 12

Values = tuple[Any, ...]


def combinations(axes: Sequence[AxisSpec]) -> Iterator[Values]:
    """Yields every combination of values, a value per column of `columns`; the last axis changes fastest.

    Raises: ScenarioError if zipped axes differ in length.
    """
    for chosen in product(*(_steps(axis, place) for place, axis in enumerate(axes))):
        yield tuple(value for step in chosen for value in step)


def columns(axes: Sequence[AxisSpec]) -> tuple[str, ...]:
    """Returns the columns of the axes in the results, those of a zip one after the other."""
    return tuple(axis.name or str(axis.path) for axis in _plain(axes))


def paths(axes: Sequence[AxisSpec]) -> tuple[str, ...]:
    """Returns the scenario's field that each column sets."""
    return tuple(str(axis.path) for axis in _plain(axes))


def _plain(axes: Sequence[AxisSpec]) -> Iterator[AxisSpec]:
    for axis in axes:
        yield from axis.zip or (axis,)


def _steps(axis: AxisSpec, place: int) -> list[Values]:
    """Returns the positions of an axis: the values of its columns at each."""
    if axis.zip is None:
        return [(value,) for value in _values(axis)]
    zipped = [_values(inner) for inner in axis.zip]
    lengths = [len(values) for values in zipped]
    if len(set(lengths)) > 1:
        what = f"axes differ in length: {', '.join(map(str, lengths))}"
        raise ScenarioError([Problem(f"$.axes[{place}].zip", what)])
    return list(zip(*zipped, strict=True))


def _values(axis: AxisSpec) -> Sequence[Any]:
    if axis.range is not None:
        return _evenly(axis.range)
    if axis.log_range is not None:
        return _geometric(axis.log_range)
    return axis.values or ()


def _evenly(spec: RangeSpec) -> list[int | float]:
    if spec.num is not None:
        numbers = np.linspace(spec.start, spec.stop, spec.num).tolist()
    else:
        step = spec.step or 1
        # A stop that rounding puts a hair below the last step still belongs to it.
        count = int((spec.stop - spec.start) / step + 1e-9) + 1
        numbers = [spec.start + step * place for place in range(count)]
    is_whole = all(isinstance(number, int) for number in (spec.start, spec.stop, spec.step or 0))
    return [_typed(number, is_whole=is_whole) for number in numbers]


def _geometric(spec: LogRangeSpec) -> list[int | float]:
    numbers = np.geomspace(spec.start, spec.stop, spec.num).tolist()
    if spec.integer:
        return list(dict.fromkeys(round(number) for number in numbers))
    return [_typed(number, is_whole=False) for number in numbers]


def _typed(number: float, *, is_whole: bool) -> int | float:
    """Returns a number as a user would have typed it; whole only where everything typed was, and it fits."""
    rounded = float(f"{number:.{_SIGNIFICANT_DIGITS}g}")
    return int(rounded) if is_whole and rounded.is_integer() else rounded
