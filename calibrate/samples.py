"""The table of measurements: one row per point, appended in parts, so that an interrupted sweep resumes.

`samples.parquet` beside a folder `samples.parquet.parts` while a sweep runs; `merge` makes one file of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import CalibrationError
from ..hwmodels.op_point import OpPoint
from .sample_table import read_table, write_table

SAMPLES_SUFFIX = ".samples.parquet"  # instead of a profile's `.yaml`
_POINT_FIELDS = tuple(field.name for field in fields(OpPoint))


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured point. error: why it could not be measured, else empty, and then time_us is 0.

    clock_mhz, power_w: of the SMs and the board, while the kernel ran; `before`: just before it was started.
    kernel .. tile: of our kernels, what the compiler made of the one that ran (see `compiled`); registers are
    those of a thread. wall_s: what measuring it cost, compiling included.
    """

    point: OpPoint
    time_us: float
    spread: float
    num_runs: int
    is_noisy: bool
    flops: float
    hbm_bytes: float
    clock_mhz: float = 0.0
    power_w: float = 0.0
    error: str = ""
    clock_before_mhz: float = 0.0
    power_before_w: float = 0.0
    kernel: str = ""
    registers: int = 0
    spills: int = 0
    shared_bytes: int = 0
    tile: str = ""
    wall_s: float = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether the point was measured."""
        return not self.error


_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SCHEMA = pa.schema(
    [(field.name, _TYPES[str(field.type)]) for field in fields(OpPoint)]
    + [(field.name, _TYPES[str(field.type)]) for field in fields(Sample) if field.name != "point"]
)


def write_samples(path: Path, samples: Iterable[Sample], host: Mapping[str, str]) -> None:
    """Writes a file at once: to a temporary name first, so that a reader never sees half of it."""
    write_table(path, map(_row, samples), SCHEMA, host)


def _row(sample: Sample) -> dict[str, Any]:
    row = asdict(sample)
    point: dict[str, Any] = row.pop("point")
    return point | row


def read_samples(path: Path) -> tuple[list[Sample], dict[str, str]]:
    """Returns the rows of a file and of its unmerged parts, in order, and the host they come from.

    Raises: CalibrationError, one line, if nothing is there or a file is no table of samples.
    """
    files = [file for file in (path, *sorted(parts_folder(path).glob("*.parquet"))) if file.exists()]
    if not files:
        raise CalibrationError(f"{path}: no samples there; 'simllm calibrate -o PROFILE' measures them")
    samples: list[Sample] = []
    host: dict[str, str] = {}
    for file in files:
        rows, found = read_table(file, SCHEMA, "samples")
        samples += map(_sample, rows)
        host |= found
    return samples, host


def _sample(row: dict[str, Any]) -> Sample:
    """Returns a row of any age: a column that a file lacks reads as null and takes its default."""
    known = {name: value for name, value in row.items() if value is not None}
    point = OpPoint(**{name: known.pop(name) for name in _POINT_FIELDS if name in known})
    return Sample(point, **known)


def parts_folder(path: Path) -> Path:
    """Returns where the parts of a running sweep lie."""
    return path.with_name(path.name + ".parts")


def append_part(path: Path, samples: Iterable[Sample], host: Mapping[str, str]) -> None:
    """Adds a part to the samples at `path`; parts sort by their number."""
    folder = parts_folder(path)
    number = 1 + max((int(part.stem) for part in folder.glob("*.parquet")), default=-1)
    write_samples(folder / f"{number:05d}.parquet", samples, host)


def merge(path: Path) -> int:
    """Puts all parts into the file at `path` and removes them. Returns the number of rows."""
    samples, host = read_samples(path)
    write_samples(path, samples, host)
    folder = parts_folder(path)
    for part in folder.glob("*.parquet"):
        part.unlink()
    if folder.exists():
        folder.rmdir()
    return len(samples)
