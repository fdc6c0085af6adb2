"""Hardware profiles: a device plus how fast operations run on it, measured or estimated.

A *datasheet* profile follows from any device file by itself, with default efficiencies, all labelled as
estimates. A *calibrated* one is a versioned file with measured operations, links and rates, their held-out
errors, the range that they hold for, and the host they come from. `kind` keeps the two apart everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ..errors import ProfileError, nearest_choice
from .catalog import stem_names
from .device import DeviceSpec, device_names, load_device
from .link_profile import LinkEntry
from .op_profile import OpProfile, make_op_profile
from .power import PowerLimit
from .profile_file import checked, read_yaml
from .profile_schema import Coefficient, Rung, RungName
from .roofline import DEFAULT_EFFICIENCY_SOURCES, Efficiency

_FOLDER = Path(__file__).parent / "profiles"
_SUFFIX = ".yaml"
# Before a device's name: its datasheet profile, where a calibrated one of that name is shipped.
_DATASHEET = "datasheet:"


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """A device, and how fast what runs on it is. Sequences and mappings are empty where nothing was measured.

    coefficients: efficiencies of the roofline by name, for operations that were not measured.
    host: where it was measured. ops: predicts operations, None for a datasheet. links: messages between
    GPUs. ladder: measured rates of memories and launches.
    """

    name: str
    kind: Literal["calibrated", "datasheet"]
    device: DeviceSpec
    coefficients: Mapping[str, Coefficient]
    host: Mapping[str, str]
    ops: OpProfile | None
    links: tuple[LinkEntry, ...]
    ladder: Mapping[RungName, Rung]
    power: PowerLimit | None = None

    @property
    def efficiency(self) -> Efficiency:
        """The values of all coefficients."""
        return Efficiency(**{name: coefficient.value for name, coefficient in self.coefficients.items()})


def profile_names() -> tuple[str, ...]:
    """Returns the names of all profiles, sorted; `datasheet:NAME` where NAME alone is a calibrated one."""
    shipped, devices = set(stem_names(_FOLDER, _SUFFIX)), set(device_names())
    return tuple(sorted({*shipped, *devices, *(f"{_DATASHEET}{name}" for name in shipped & devices)}))


def datasheet_profile(device: DeviceSpec) -> HardwareProfile:
    """Returns the profile of a device that nobody has measured: named as the device, all estimated."""
    return HardwareProfile(
        device.name, "datasheet", device, _default_coefficients(), host={}, ops=None, links=(), ladder={}
    )


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Returns a shipped profile by name, or one by the path of a profile file or device file.

    A device's name gives the calibrated profile of that name where one is shipped, else the datasheet one;
    `datasheet:NAME` always gives the latter, and so does a device file. Names match whatever their case.
    Raises: ProfileError, one line, if there is no such profile or its file is invalid.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _read_profile(path)
    name = str(name_or_path).lower()
    if name.startswith(_DATASHEET):
        return datasheet_profile(load_device(str(name_or_path)[len(_DATASHEET) :]))
    if name in stem_names(_FOLDER, _SUFFIX):
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
    parsed = checked(content, path)
    return HardwareProfile(
        parsed.name,
        parsed.kind,
        load_device(parsed.device),
        _default_coefficients() | dict(parsed.efficiency),
        host=parsed.host,
        ops=make_op_profile(parsed, path),
        links=parsed.links,
        ladder=parsed.ladder,
        power=None if parsed.power is None else parsed.power.limit(),
    )


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
