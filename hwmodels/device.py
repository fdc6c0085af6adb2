"""What a GPU (or NPU) is to the models: rates, sizes and where each figure comes from.

Shipped devices are `devices/*.yaml`, one figure per line with its source; `load_device` reads them, or a
file of the user's own. Links between devices and their latencies belong to `topology` and `collectives`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import ProfileError
from .catalog import find_entry, stem_names

_FOLDER = Path(__file__).parent / "devices"
_SUFFIX = ".yaml"

MatrixDtype = Literal["tf32", "bf16", "fp16", "fp8", "fp4", "int8", "int4"]
"""Operand types of matrix units; all but the integers accumulate in fp32."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One accelerator, by its datasheet. Rates are dense, per second, of the whole device.

    matrix_flops_per_s: matrix-unit rate by dtype (`bf16`, `fp16`, `fp8`, `int8`, `tf32`, ...); absent where
    the device has no such unit. vector_flops_per_s: fp32 outside the matrix units.
    hbm_bytes: all the memory that the driver shows ("80 GB" on an NVIDIA sheet are 80 GiB).
    l2_bytes: the last cache that all SMs share (MI300X: its Infinity Cache).
    sram_bytes_per_sm: shared memory + L1 of one SM; sram_bytes_per_s: all SMs together.
    num_sms: streaming multiprocessors, compute units or AI cores.
    nvlink_/pcie_bytes_per_s_per_direction: one GPU's links added up, None without such links; "nvlink" also
    stands for Infinity Fabric and HCCS, "pcie" for whatever leads to the host (GB200: NVLink-C2C).
    launch_s: time from one kernel's end to the next one's start inside a CUDA graph.
    estimated: names of the fields whose value is an estimate; sources: field -> public source. A dtype's
    rate is named ``matrix_flops_per_s.bf16``.
    """

    name: str
    matrix_flops_per_s: Mapping[str, float]
    vector_flops_per_s: float
    hbm_bytes: float
    hbm_bytes_per_s: float
    l2_bytes: float
    l2_bytes_per_s: float
    sram_bytes_per_sm: float
    sram_bytes_per_s: float
    num_sms: int
    clock_hz: float
    nvlink_bytes_per_s_per_direction: float | None
    pcie_bytes_per_s_per_direction: float | None
    launch_s: float
    estimated: frozenset[str]
    sources: Mapping[str, str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Figure(_Part):
    """One number of a device file: its value, public source, and how it was derived from it."""

    value: Annotated[float, Field(gt=0)]
    source: str | None = None
    note: str | None = None
    estimated: bool = False

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if not self.source and not self.estimated:
            raise ValueError("needs a source, or 'estimated: true' where none is public")
        return self

    @property
    def citation(self) -> str:
        """Source and derivation in one line."""
        source = self.source or "estimate"
        return source if self.note is None else f"{source}; {self.note}"


class _Count(_Figure):
    """A figure that is a whole number."""

    value: Annotated[int, Field(gt=0)]


class _DeviceFile(_Part):
    """The schema of a device file. `references` only holds the texts that figures repeat by YAML alias."""

    kind: Literal["datasheet"]
    name: str
    references: list[str] = []
    matrix_flops_per_s: Annotated[dict[MatrixDtype, _Figure], Field(min_length=1)]
    vector_flops_per_s: _Figure
    hbm_bytes: _Figure
    hbm_bytes_per_s: _Figure
    l2_bytes: _Figure
    l2_bytes_per_s: _Figure
    sram_bytes_per_sm: _Figure
    sram_bytes_per_s: _Figure
    num_sms: _Count
    clock_hz: _Figure
    nvlink_bytes_per_s_per_direction: _Figure | None
    pcie_bytes_per_s_per_direction: _Figure | None
    launch_s: _Figure

    def figures(self) -> dict[str, _Figure]:
        """Returns every figure of the file by its dotted name."""
        flat = {f"matrix_flops_per_s.{dtype}": figure for dtype, figure in self.matrix_flops_per_s.items()}
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return flat | {name: figure for name, figure in named.items() if isinstance(figure, _Figure)}

    def spec(self) -> DeviceSpec:
        """Returns the figures as plain numbers, with their sources beside them."""
        figures = self.figures()
        nvlink, pcie = self.nvlink_bytes_per_s_per_direction, self.pcie_bytes_per_s_per_direction
        return DeviceSpec(
            name=self.name,
            matrix_flops_per_s={dtype: figure.value for dtype, figure in self.matrix_flops_per_s.items()},
            vector_flops_per_s=self.vector_flops_per_s.value,
            hbm_bytes=self.hbm_bytes.value,
            hbm_bytes_per_s=self.hbm_bytes_per_s.value,
            l2_bytes=self.l2_bytes.value,
            l2_bytes_per_s=self.l2_bytes_per_s.value,
            sram_bytes_per_sm=self.sram_bytes_per_sm.value,
            sram_bytes_per_s=self.sram_bytes_per_s.value,
            num_sms=self.num_sms.value,
            clock_hz=self.clock_hz.value,
            nvlink_bytes_per_s_per_direction=None if nvlink is None else nvlink.value,
            pcie_bytes_per_s_per_direction=None if pcie is None else pcie.value,
            launch_s=self.launch_s.value,
            estimated=frozenset(name for name, figure in figures.items() if figure.estimated),
            sources={name: figure.citation for name, figure in figures.items()},
        )


def device_names() -> tuple[str, ...]:
    """Returns the names of the shipped devices, sorted."""
    return stem_names(_FOLDER, _SUFFIX)


def load_device(name_or_path: str | Path) -> DeviceSpec:
    """Returns a shipped device by name, or any device by the path of its file.

    Names match whatever their case.
    Raises: ProfileError, one line with every wrong field, if there is no such device or its file is invalid.
    """
    path = find_entry(name_or_path, folder=_FOLDER, suffix=_SUFFIX, kind="device", error=ProfileError)
    try:
        return _DeviceFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).spec()
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ProfileError(f"{path}: {'; '.join(_problems(error))}") from None


def _problems(error: ValidationError) -> list[str]:
    """Returns one phrase per wrong field: its dotted name and what is wrong with it."""
    return [
        f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in error.errors()
    ]
