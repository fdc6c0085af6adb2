"""`simllm calibrate fit`: samples in, profile out, with its errors on shapes left out. Needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CalibrationError, SimllmError
from ..hwmodels.device import DeviceSpec, device_names, load_device
from ..hwmodels.profile_file import read_calibrated
from ..hwmodels.profile_schema import CalibratedFile
from ..units import US
from .files import check_writable, write_whole
from .fit import Key, OpFit
from .fitted_file import fit_all, fitted_text
from .ladder import ladder_of
from .samples import Sample, read_samples
from .validate import HeldOut

_HEADER = (
    f"{'op':18} {'implementation':14} {'dtype':5} {'samples':>7} {'median':>7} {'p90':>7} {'worst':>7}"
    "  left out"
)


def fit_command(
    samples: Annotated[Path, typer.Argument(help="Samples that `simllm calibrate` measured.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The profile to write (YAML).")
    ],
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device that was measured; found by the GPU's name if empty.")
    ] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the profile; the file's if empty.")] = "",
) -> None:
    """Fit the models to samples and print their errors on shapes that were left out. Needs no GPU.

    The same samples give the same bytes.
    """
    check_profile_place(output)
    _, host = read_samples(samples)
    fit_profile(samples, output, find_device(device, host), name=name or output.stem)


def check_profile_place(path: Path) -> None:
    """Checks that a profile may be written there; worth doing before measuring.

    Raises: CalibrationError or ProfileError, one line, if not, or if a file there is no profile.
    """
    check_writable(path)
    _profile_before(path)


def _profile_before(path: Path) -> CalibratedFile | None:
    return read_calibrated(path) if path.exists() else None


def fit_profile(samples: Path, output: Path, device: DeviceSpec, *, name: str) -> None:
    """Writes the profile of `samples`; links that `output` holds already are kept."""
    before = _profile_before(output)
    rows, host = read_samples(samples)
    typer.echo(_HEADER)
    entries = fit_all(rows, device, report=_show_fit, skip=_show_skipped)
    typer.echo("".join(f"\n{line}" for line in ladder_lines(rows, device)))
    write_whole(output, fitted_text(name, device, host, entries, rows, before=before))
    typer.echo(f"{output}: {len(entries)} fits on {device.name}", err=True)


def ladder_lines(samples: Sequence[Sample], device: DeviceSpec) -> list[str]:
    """Returns what the probes measured, a rung a line: bandwidths in TB/s, launches in microseconds."""
    shown = {"B/s": (1e-12, "TB/s"), "s": (1 / US, "us")}
    lines = []
    for name, rung in ladder_of(samples, device).items():
        factor, unit = shown[rung["unit"]]
        value, low, high = (rung[of] * factor for of in ("value", "low", "high"))
        lines.append(f"{name.replace('_', ' '):18} {value:7.2f} {unit:4} ({low:.2f} to {high:.2f})")
    return lines


def find_device(name: str, host: Mapping[str, str]) -> DeviceSpec:
    """Returns the device of this name or file, if it is empty that of the GPU that the host has.

    Raises: CalibrationError or ProfileError, one line, if there is none.
    """
    return load_device(name or device_of(host.get("name", "")))


def device_of(gpu: str) -> str:
    """Returns the shipped device that a GPU's name means: `NVIDIA H200` -> `h200-sxm`.

    Raises: CalibrationError, one line, if none or several could be meant.
    """
    words = gpu.lower().replace("-", " ").split()
    fitting = [name for name in device_names() if name.split("-")[0] in words]
    if len(fitting) > 1:
        fitting = [name for name in fitting if all(part in words for part in name.split("-")[1:])] or fitting
    if len(fitting) != 1:
        known = ", ".join(fitting or device_names())
        raise CalibrationError(f"{gpu or 'samples without a host'}: give --device, one of {known}, or a file")
    return fitting[0]


def _show_fit(key: Key, fit: OpFit, errors: HeldOut) -> None:
    shown = f"{errors.median:7.1%} {errors.p90:7.1%} {errors.worst:7.1%}  {errors.grouped_by}"
    typer.echo(f"{key[0]:18} {key[1]:14} {key[2]:5} {errors.num_samples:7d} {shown}")


def _show_skipped(key: Key, error: SimllmError) -> None:
    typer.echo(f"not fitted: {error}", err=True)
