"""Predictions for single operations on a calibrated GPU, from the fits in its profile.

Outside the range of sizes that were measured the formulas go on by their physics, and a prediction says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ProfileError, nearest_choice
from .device import DeviceSpec, load_device
from .op_form import Coefficients, Features, Form
from .op_model import FORM_OF_OP, FORMS, form_of
from .op_point import OpPoint, work
from .profile_file import read_calibrated
from .profile_schema import CalibratedFile, OpEntry

Array = NDArray[np.float64]
SIZES = (
    "m", "n", "k", "batch", "query_len", "context_len", "num_q_heads", "num_kv_heads", "head_dim",
    "num_experts", "top_k", "kernel_size", "skew",
)  # fmt: skip
"""Sizes of a point whose measured range is kept. Uneven contexts and pages only change how a size is met."""


@dataclass(frozen=True, slots=True)
class OpPrediction:
    """The time of one operation and its work.

    bound: what binds it: `matrix`, `vector`, `l2`, `hbm`, `power` (the board's limit), `latency` (one CTA's
    dependent steps) or `launch`. is_extrapolated: one of its sizes was not measured.
    """

    time_s: float
    flops: float
    hbm_bytes: float
    bound: str
    is_extrapolated: bool


class OpProfile:
    """Predicts operations on one calibrated GPU. Pure: no state changes after construction.

    Products draw so much power that the clock falls: `sustained` asks for their time with the clock settled,
    as after tens of ms of them; without it the power limit does not bind, as right after a pause.
    """

    def __init__(self, name: str, entries: Sequence[OpEntry], device: DeviceSpec) -> None:
        self.name = name
        self.entries = tuple(entries)
        self.device = device
        self._entries = {(entry.op, entry.implementation, entry.dtype): entry for entry in entries}

    def has(self, op: str, implementation: str, dtype: str) -> bool:
        """Returns whether there is a fit for an op, implementation and dtype."""
        return (op, implementation, dtype) in self._entries

    def entry(self, point: OpPoint) -> OpEntry:
        """Returns the fit for a point. Raises: ProfileError, with the nearest one, if there is none."""
        key = (point.op, point.implementation, point.dtype)
        found = self._entries.get(key)
        if found is None:
            nearest = nearest_choice(" ".join(key), (" ".join(known) for known in self._entries))
            hint = "" if nearest is None else f"; did you mean {nearest!r}?"
            raise ProfileError(f"{self.name} has no calibration of {' '.join(key)!r}{hint}")
        return found

    def coefficients(self, point: OpPoint) -> dict[str, float]:
        """Returns all coefficients that price a point; those that samples do not show have no effect."""
        entry = self.entry(point)
        known = {name: coefficient.value for name, coefficient in entry.coefficients.items()}
        return form_of(entry.op).absent | known

    def predict(self, point: OpPoint, *, sustained: bool = True) -> OpPrediction:
        """Returns time, work, what binds, and whether the sizes lie outside what was measured."""
        needed = work(point)
        form, features, values = self._formula([point], sustained)
        return OpPrediction(
            time_s=float(form.seconds(features, values)[0]),
            flops=needed.flops,
            hbm_bytes=needed.hbm_bytes,
            bound=form.bounds(features, values)[0],
            is_extrapolated=self.extrapolates(point),
        )

    def extrapolates(self, point: OpPoint) -> bool:
        """Returns whether any size of a point lies outside what was measured."""
        return is_extrapolated(point, self.entry(point))

    def seconds(self, points: Sequence[OpPoint], *, sustained: bool = True) -> Array:
        """Returns the times [s] of points that share op, implementation and dtype, all at once.

        Raises: ProfileError if there is no fit for them.
        """
        form, features, values = self._formula(points, sustained)
        return form.seconds(features, values)

    def bounds(self, points: Sequence[OpPoint], *, sustained: bool = True) -> list[str]:
        """Returns what binds each of such points."""
        form, features, values = self._formula(points, sustained)
        return form.bounds(features, values)

    def _formula(self, points: Sequence[OpPoint], sustained: bool) -> tuple[Form, Features, Coefficients]:
        form = form_of(points[0].op)
        known = self.coefficients(points[0])
        values = {name: known[name] for name in known if sustained or name not in form.power_limit}
        return form, form.features(points, self.device), values


def is_extrapolated(point: OpPoint, entry: OpEntry) -> bool:
    """Returns whether any size of the point lies outside the measured range, which is 0 if never measured."""
    ranges = ((getattr(point, name), entry.valid.get(name, (0.0, 0.0))) for name in SIZES)
    return any(not low <= size <= high for size, (low, high) in ranges)


def make_op_profile(content: CalibratedFile, path: Path) -> OpProfile | None:
    """Returns the predictor of a profile's file, None if it has no operations.

    Raises: ProfileError, one line, if a fit does not have the coefficients of its form.
    """
    for entry in content.ops:
        _check_coefficients(entry, path)
    return OpProfile(content.name, content.ops, load_device(content.device)) if content.ops else None


def load_op_profile(path: Path) -> OpProfile:
    """Returns the operations of a calibrated file. Raises: ProfileError, one line, if it is invalid."""
    profile = make_op_profile(read_calibrated(path), path)
    if profile is None:
        raise ProfileError(f"{path}: has no ops; 'simllm calibrate fit' makes them of samples")
    return profile


def _check_coefficients(entry: OpEntry, path: Path) -> None:
    where = f"{path}: {entry.op} {entry.implementation} {entry.dtype}"
    form = FORMS.get(entry.form)
    if form is None or FORM_OF_OP.get(entry.op) != entry.form:
        known = FORM_OF_OP.get(entry.op)
        raise ProfileError(f"{where}: form {entry.form!r} does not price it, {known!r} does")
    known_names = {one.name for one in form.coefficients}
    for name in entry.coefficients:
        if name not in known_names:
            hint = nearest_choice(name, known_names)
            raise ProfileError(f"{where}: form {form.name!r} has no {name!r}; did you mean {hint!r}?")
    if missing := sorted(known_names - set(form.absent) - set(entry.coefficients)):
        raise ProfileError(f"{where}: form {form.name!r} needs {', '.join(missing)}")
