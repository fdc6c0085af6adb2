"""Samples in, fitted file out: every fit with its held-out errors, as `hwmodels.profile` reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.profile_file import dump_profile
from ..hwmodels.profile_schema import CalibratedFile
from .efficiencies import derive_efficiencies
from .fit import Key, OpFit, by_key, fit_samples
from .ladder import ladder_of
from .samples import Sample
from .validate import HeldOut, held_out

SCHEMA_VERSION = 1
LINKS_PREFIX = "links_"  # of what a profile's host says of its links
FITTED_SECTIONS = {"schema_version", "kind", "name", "device", "host", "efficiency", "ladder", "ops"}


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
            fit = fit_samples(group, device)
            errors = held_out(group, device, near=fit)
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
    name: str,
    device: DeviceSpec,
    host: Mapping[str, str],
    entries: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample] = (),
    *,
    before: CalibratedFile | None = None,
) -> str:
    """Returns the profile: fits, the ladder that `samples` hold, and the efficiencies that follow.

    before: the profile that this one replaces, whose other sections it keeps.
    Raises: CalibrationError if nothing could be fitted.
    """
    if not entries:
        raise CalibrationError("no op has samples enough to fit")
    ladder = ladder_of(samples, device)
    kept, kept_host = kept_sections(before)
    fitted = {
        "schema_version": SCHEMA_VERSION,
        "kind": "calibrated",
        "name": name,
        "device": device.name,
        "host": dict(sorted(host.items())) | kept_host,
        "efficiency": derive_efficiencies(ladder, entries, device),
        "ladder": ladder,
    }
    return dump_profile({**fitted, **kept, "ops": list(entries)})


def kept_sections(before: CalibratedFile | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what a new fit of operations keeps of a profile: links and what else it does not fit itself.

    And of its host, what says where the links were measured.
    """
    if before is None:
        return {}, {}
    host = {key: text for key, text in before.host.items() if key.startswith(LINKS_PREFIX)}
    return before.model_dump(exclude=FITTED_SECTIONS, exclude_defaults=True), host
