"""The table of power measurements: one row per step, in the order in which the steps ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import pyarrow as pa

from ..errors import CalibrationError
from .sample_table import read_table, write_table

StepKind = Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True)
class PowerSample:
    """One step of a sequence that began rested.

    place: in its sequence, from 0. graph: name of what ran; matrix_share: how much of its time at full clock
    products and attention on matrix units bind. pause_s: idle time before the step; 0 before the first, whose
    pause was long. started_s: from the start of the measurement on. power_w, clock_mhz: of the board and its
    SMs, as the driver last told them during the step; the power lags by up to 0.1 s.
    """

    sequence: str
    place: int
    graph: str
    kind: StepKind
    num_tokens: int
    matrix_share: float
    pause_s: float
    started_s: float
    time_ms: float
    power_w: float
    clock_mhz: float


_TYPES = {"str": pa.string(), "StepKind": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema([(field.name, _TYPES[str(field.type)]) for field in fields(PowerSample)])


def write_power_samples(path: Path, samples: Iterable[PowerSample], host: Mapping[str, str]) -> None:
    """Writes a file whole or not at all."""
    write_table(path, map(asdict, samples), SCHEMA, host)


def read_power_samples(path: Path) -> tuple[list[PowerSample], dict[str, str]]:
    """Returns the rows of a file and the host that they come from.

    Raises: CalibrationError, one line, if there is no such file or it is no table of power samples.
    """
    if not path.exists():
        raise CalibrationError(f"{path}: no samples there; 'simllm calibrate power -o PROFILE' measures them")
    rows, host = read_table(path, SCHEMA, "power samples")
    if not all(value is not None for row in rows for value in row.values()):
        raise CalibrationError(f"{path}: no table of power samples: a column is missing")
    return [PowerSample(**row) for row in rows], host
