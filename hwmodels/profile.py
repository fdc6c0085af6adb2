"""Hardware profiles: a device plus how much of its rates kernels reach, measured or estimated.

A *datasheet* profile follows from any device file by itself, with default efficiencies, all labelled as
estimates. A *calibrated* one is a versioned file with measured coefficients, their held-out errors, the
range that they hold for, and the host they come from. `kind` keeps the two apart everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ProfileError, nearest_choice
from .catalog import stem_names
from .device import DeviceSpec, device_names, load_device
from .profile_file import checked, read_yaml
from .roofline import DEFAULT_EFFICIENCY_SOURCES, Efficiency

_FOLDER = Path(__file__).parent / "profiles"
_SUFFIX = ".yaml"

EfficiencyName = Literal["matrix", "attention_matrix", "vector", "hbm", "kv_hbm", "l2", "sram", "link"]


class Coefficient(BaseModel):
    """One efficiency: its value, where it comes from, and how far it can be trusted.

    valid: the range of sizes that were measured, in words. held_out_error: median relative error on
    measurements that were kept out of the fit, None for an estimate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: Annotated[float, Field(gt=0, le=1)]
    source: Annotated[str, Field(min_length=1)]
    estimated: bool = False
    valid: str | None = None
    held_out_error: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """A device and its efficiencies, by name. host: where they were measured, empty for estimates."""

    name: str
    kind: Literal["calibrated", "datasheet"]
    device: DeviceSpec
    coefficients: Mapping[str, Coefficient]
    host: Mapping[str, str]

    @property
    def efficiency(self) -> Efficiency:
        """The values of all coefficients."""
        return Efficiency(**{name: coefficient.value for name, coefficient in self.coefficients.items()})


class _ProfileFile(BaseModel):
    """The schema of a calibrated profile. Efficiencies that it leaves out keep their estimated defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    kind: Literal["calibrated"]
    name: Annotated[str, Field(min_length=1)]
    device: str
    efficiency: Annotated[dict[EfficiencyName, Coefficient], Field(min_length=1)]
    host: Annotated[dict[str, str], Field(min_length=1)]


def profile_names() -> tuple[str, ...]:
    """Returns the names of all shipped profiles, those derived from device files included, sorted."""
    return tuple(sorted({*_shipped_names(), *device_names()}))


def _shipped_names() -> tuple[str, ...]:
    # `<gpu>.ops.yaml` beside them is what single operations take, see `op_profile`.
    return tuple(name for name in stem_names(_FOLDER, _SUFFIX) if not name.endswith(".ops"))


def datasheet_profile(device: DeviceSpec) -> HardwareProfile:
    """Returns the profile of a device that nobody has measured: named as the device, all estimated."""
    return HardwareProfile(device.name, "datasheet", device, _default_coefficients(), host={})


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Returns a shipped profile by name, or one by the path of a profile file or device file.

    A device's name or file gives its datasheet profile. Names match whatever their case.
    Raises: ProfileError, one line, if there is no such profile or its file is invalid.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _read_profile(path)
    name = str(name_or_path).lower()
    if name in _shipped_names():
        return _read_profile(_FOLDER / f"{name}{_SUFFIX}")
    if name in device_names():
        return datasheet_profile(load_device(name))
    nearest = nearest_choice(name, profile_names())
    hint = "" if nearest is None else f"; did you mean {nearest!r}?"
    raise ProfileError(f"{name_or_path}: no such profile or device, neither a file nor a shipped name{hint}")


def _read_profile(path: Path) -> HardwareProfile:
    content = read_yaml(path)
    if isinstance(content, dict) and content.get("kind") == "datasheet":
        return datasheet_profile(load_device(path))
    parsed = checked(content, _ProfileFile, path)
    coefficients = _default_coefficients()
    for name, coefficient in parsed.efficiency.items():
        coefficients[name] = coefficient
    return HardwareProfile(parsed.name, parsed.kind, load_device(parsed.device), coefficients, parsed.host)


def _default_coefficients() -> dict[str, Coefficient]:
    defaults = Efficiency()
    return {
        field.name: Coefficient(
            value=getattr(defaults, field.name),
            source=DEFAULT_EFFICIENCY_SOURCES[field.name],
            estimated=True,
        )
        for field in fields(Efficiency)
    }
