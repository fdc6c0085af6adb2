"""The table of link measurements: one row per point, rewritten whole while a measurement goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import CalibrationError
from .links_plan import LinkPoint
from .sample_table import read_table, write_table

_POINT_FIELDS = tuple(field.name for field in fields(LinkPoint))


@dataclass(frozen=True, slots=True)
class LinkSample:
    """One measured point. time_us: of one collective or copy, the slowest rank's median over the replays.

    In mode `after_gemm` what it adds to the product alone, which takes gemm_us. spread: interquartile range
    over median. error: why it could not be measured, else empty, and then time_us is 0.
    """

    point: LinkPoint
    time_us: float = 0.0
    spread: float = 0.0
    num_runs: int = 0
    is_noisy: bool = False
    gemm_us: float = 0.0
    error: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether the point was measured, and a time came out."""
        return not self.error and self.time_us > 0


_TYPES = {
    "str": pa.string(), "LinkMode": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()
}  # fmt: skip
SCHEMA = pa.schema(
    [
        (field.name, _TYPES[str(field.type)])
        for field in (*fields(LinkPoint), *fields(LinkSample))
        if field.name != "point"
    ]
)


def write_link_samples(path: Path, samples: Iterable[LinkSample], host: Mapping[str, str]) -> None:
    """Writes a file at once: a reader never sees half of it."""
    write_table(path, map(_row, samples), SCHEMA, host)


def read_link_samples(path: Path) -> tuple[list[LinkSample], dict[str, str]]:
    """Returns the rows of a file and the host that they come from.

    Raises: CalibrationError, one line, if there is no such file or it is no table of link samples.
    """
    if not path.exists():
        raise CalibrationError(f"{path}: no samples there; 'simllm calibrate links -o PROFILE' measures them")
    rows, host = read_table(path, SCHEMA, "link samples")
    return [_sample(row) for row in rows], host


def _row(sample: LinkSample) -> dict[str, Any]:
    row = asdict(sample)
    point: dict[str, Any] = row.pop("point")
    return point | row


def _sample(row: dict[str, Any]) -> LinkSample:
    point = LinkPoint(**{name: row.pop(name) for name in _POINT_FIELDS})
    return LinkSample(point, **row)
