"""The GPU host that measurements come from: names, versions, clocks and power."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from ..errors import CalibrationError

_FIELDS = (
    "name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "power.limit",
    "temperature.gpu", "memory.total",
)  # fmt: skip
_KEPT = ("name", "driver_version", "clocks.max.sm", "power.limit", "memory.total")
# What kernels and timer run on: descriptors of TMA tiles, `torch.cuda.power_draw`, launch hooks in
# `triton.knobs`. Source: pyproject.toml, extra `gpu`; tested with these.
OLDEST = {"torch": (2, 11), "triton": (3, 6)}


def query_gpu() -> Mapping[str, str]:
    """Returns what nvidia-smi says about the first GPU, units included.

    Raises: CalibrationError, one line, if there is no NVIDIA GPU or driver.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader", "--id=0"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CalibrationError(
            f"calibrating needs an NVIDIA GPU, but nvidia-smi failed: {' '.join(str(error).split())}"
        ) from None
    values = [value.strip() for value in output.strip().split(",")]
    if len(values) != len(_FIELDS):
        raise CalibrationError(f"nvidia-smi answered {output.strip()!r} instead of {len(_FIELDS)} values")
    return dict(zip(_FIELDS, values, strict=True))


def package_versions() -> Mapping[str, str]:
    """Returns the versions of torch and triton. Raises: CalibrationError if one is missing or too old."""
    found = {}
    for package, oldest in OLDEST.items():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise CalibrationError(
                f"calibrating needs {package}: pip install 'simllm[gpu]' on the GPU host"
            ) from None
        if _release(found[package]) < oldest:
            needed = ".".join(map(str, oldest))
            raise CalibrationError(
                f"calibrating needs {package} {needed} or newer, this is {found[package]}: "
                f"pip install 'simllm[gpu]' on the GPU host"
            )
    return found


def _release(text: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version: `2.11.0+cu130` -> (2, 11)."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def describe_host() -> Mapping[str, str]:
    """Returns the provenance that a profile carries: GPU, driver, power limit, versions and date.

    Raises: CalibrationError, one line, without a GPU that torch can use.
    """
    gpu, packages = query_gpu(), package_versions()
    import torch

    if not torch.cuda.is_available():
        raise CalibrationError(
            f"torch {packages['torch']} sees no GPU although nvidia-smi shows {gpu['name']}"
        )
    kept = {name.replace(".", "_"): gpu[name] for name in _KEPT}
    cuda = {"cuda": str(torch.version.cuda)}
    return {**kept, **packages, **cuda, "date": datetime.now(UTC).date().isoformat()}
