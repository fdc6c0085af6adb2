"""Samples in, fitted file out: every fit with its held-out errors, as `hwmodels.op_profile` reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_profile import dump_op_profile
from .fit import Key, OpFit, by_key, fit_samples
from .samples import Sample
from .validate import HeldOut, held_out

SCHEMA_VERSION = 1


def fit_all(
    samples: Sequence[Sample],
    device: DeviceSpec,
    *,
    report: Callable[[Key, OpFit, HeldOut], None] = lambda key, fit, errors: None,
    skip: Callable[[Key, CalibrationError], None] = lambda key, error: None,
) -> list[dict[str, Any]]:
    """Returns one entry per op, implementation and dtype that has samples enough, sorted.

    report, skip: told of every fit, and of everything that had too few samples to fit.
    """
    entries = []
    for key, group in by_key(samples).items():
        try:
            fit, errors = fit_samples(group, device), held_out(group, device)
        except CalibrationError as error:
            skip(key, error)
            continue
        report(key, fit, errors)
        entries.append(_entry(key, fit, errors))
    return entries


def _entry(key: Key, fit: OpFit, errors: HeldOut) -> dict[str, Any]:
    op, implementation, dtype = key
    return {
        "op": op,
        "implementation": implementation,
        "dtype": dtype,
        "form": fit.form,
        "num_samples": fit.num_samples,
        "held_out": {name: getattr(errors, name) for name in HeldOut.__slots__},
        "valid": {name: list(bounds) for name, bounds in fit.valid.items()},
        "coefficients": {
            name: {"value": fitted.value, "low": fitted.low, "high": fitted.high}
            for name, fitted in fit.coefficients.items()
        },
    }


def fitted_text(
    name: str, device: DeviceSpec, host: Mapping[str, str], entries: Sequence[Mapping[str, Any]]
) -> str:
    """Returns the fitted file. Raises: CalibrationError if nothing could be fitted."""
    if not entries:
        raise CalibrationError("no op has samples enough to fit")
    return dump_op_profile(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "calibrated",
            "name": name,
            "device": device.name,
            "host": dict(sorted(host.items())),
            "ops": list(entries),
        }
    )
