"""The fitted file of a GPU: coefficients per op, implementation and dtype, and predictions from them.

Every coefficient has its confidence, every fit the range of sizes that were measured and its error on shapes
that it never saw. Outside that range the formulas go on by their physics, and a prediction says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ProfileError, nearest_choice
from .device import DeviceSpec, load_device
from .op_model import FORMS, form_of
from .op_point import OpPoint, work
from .profile_file import checked, read_yaml


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FittedCoefficient(_Part):
    """A value with the ends of its 95 % confidence interval, in the unit that its form states."""

    value: Annotated[float, Field(gt=0)]
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]


class HeldOutErrors(_Part):
    """Relative errors on samples whose whole group (`grouped_by`) was left out of the fit."""

    median: float
    p90: float
    worst: float
    grouped_by: str
    num_groups: int
    num_samples: int


class OpEntry(_Part):
    """One fit. valid: smallest and largest measured value of every size."""

    op: str
    implementation: str
    dtype: str
    form: str
    num_samples: int
    held_out: HeldOutErrors
    valid: Mapping[str, tuple[float, float]]
    coefficients: Mapping[str, FittedCoefficient]


class OpProfileFile(_Part):
    """The schema of a fitted file."""

    schema_version: Literal[1]
    kind: Literal["calibrated"]
    name: str
    device: str
    host: Mapping[str, str]
    ops: Annotated[list[OpEntry], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class OpPrediction:
    """The time of one operation and its work. is_extrapolated: one of its sizes was not measured."""

    time_s: float
    flops: float
    hbm_bytes: float
    is_extrapolated: bool


class OpProfile:
    """Predicts operations on one calibrated GPU. Pure: no state changes after construction."""

    def __init__(self, content: OpProfileFile, device: DeviceSpec) -> None:
        self.content = content
        self.device = device
        self._entries = {(entry.op, entry.implementation, entry.dtype): entry for entry in content.ops}

    def entry(self, point: OpPoint) -> OpEntry:
        """Returns the fit for a point. Raises: ProfileError, with the nearest one, if there is none."""
        key = (point.op, point.implementation, point.dtype)
        found = self._entries.get(key)
        if found is None:
            nearest = nearest_choice(" ".join(key), (" ".join(known) for known in self._entries))
            hint = "" if nearest is None else f"; did you mean {nearest!r}?"
            raise ProfileError(f"{self.content.name} has no calibration of {' '.join(key)!r}{hint}")
        return found

    def predict(self, point: OpPoint) -> OpPrediction:
        """Returns time, work and whether the sizes lie outside what was measured."""
        entry, needed = self.entry(point), work(point)
        form = form_of(point.op)
        values = {name: coefficient.value for name, coefficient in entry.coefficients.items()}
        seconds = form.seconds(form.features([point], self.device), values)
        return OpPrediction(
            float(np.asarray(seconds)[0]), needed.flops, needed.hbm_bytes, is_extrapolated(point, entry)
        )


def is_extrapolated(point: OpPoint, entry: OpEntry) -> bool:
    """Returns whether any size of the point lies outside the measured range."""
    return any(not low <= getattr(point, name) <= high for name, (low, high) in entry.valid.items())


def load_op_profile(path: Path) -> OpProfile:
    """Returns the profile of a fitted file. Raises: ProfileError, one line, if it is invalid."""
    content = checked(read_yaml(path), OpProfileFile, path)
    _check_coefficients(path, content)
    return OpProfile(content, load_device(content.device))


def _check_coefficients(path: Path, content: OpProfileFile) -> None:
    for entry in content.ops:
        form = FORMS.get(entry.form)
        expected = set() if form is None else {coefficient.name for coefficient in form.coefficients}
        if not expected or set(entry.coefficients) != expected:
            where = f"{entry.op} {entry.implementation} {entry.dtype}"
            raise ProfileError(f"{path}: {where}: form {entry.form!r} needs {sorted(expected)}")


def dump_op_profile(content: Mapping[str, Any]) -> str:
    """Returns the text of a fitted file, the same for the same content."""
    plain = OpProfileFile.model_validate(content).model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False, width=110, default_flow_style=None)
