"""A finished run as its folder tells it; what was not recorded is None."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ....errors import SimllmError
from ..meta import Slo
from ..summary import SCHEMA_VERSION

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run and its checked summary; steps and kv are None if steps were not recorded."""

    summary: dict[str, Any]
    requests: Path
    steps: Path | None
    kv: Path | None


@dataclass(frozen=True)
class Run:
    """One run. requests, steps, kv: its tables; steps and kv are None where steps were not recorded.

    name: its folder's, as no other run of the report is named. Instants are seconds of the simulated clock.
    """

    name: str
    summary: dict[str, Any]
    requests: pd.DataFrame
    steps: pd.DataFrame | None
    kv: pd.DataFrame | None

    @cached_property
    def completed(self) -> pd.DataFrame:
        """The requests that got their last token: those of which latencies are told."""
        return self.requests[self.requests["status"] == "finished"]

    @property
    def started_at(self) -> float:
        """The first arrival [s]."""
        first = self.requests["arrived_at"].min()
        return 0.0 if np.isnan(first) else float(first)

    @property
    def ended_at(self) -> float:
        """The end of the simulated run [s]."""
        return self.started_at + float(self.summary["span_s"])

    @property
    def slo(self) -> Slo:
        """The limits that the run was held to; none without an objective."""
        return Slo(**(self.summary["slo"] or {}))

    @property
    def terms(self) -> list[str]:
        """Names of the cost terms."""
        return list(self.summary["term_share"])


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads the runs in these folders, in this order.

    Raises: SimllmError for a folder that holds no run, or one that this version cannot read.
    """
    return [_read(folder, name) for folder, name in zip(folders, run_names(folders), strict=True)]


def run_names(folders: Sequence[Path]) -> list[str]:
    """Returns a name for each folder: as many of its path's last parts as tell all of them apart.

    Raises: SimllmError if a folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise SimllmError(f"{folders[place]}: is given twice")
    for num_parts in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = ["/".join(path.parts[-num_parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return []


def run_files(folder: Path) -> RunFiles:
    """Returns the files in a run's folder.

    Raises: SimllmError if it holds no run, or one that this version cannot read.
    """
    summary = _read_summary(folder)
    paths = {name: folder / f"{name}.parquet" for name in ("requests", "steps", "kv")}
    if not paths["requests"].is_file():
        raise SimllmError(f"{folder}: has no requests.parquet; give a folder that `simllm run -o` wrote")
    steps, kv = (path if path.is_file() else None for path in (paths["steps"], paths["kv"]))
    return RunFiles(summary, paths["requests"], steps, kv)


def _read(folder: Path, name: str) -> Run:
    files = run_files(folder)
    steps, kv = (None if path is None else _read_table(path) for path in (files.steps, files.kv))
    return Run(name, files.summary, _read_table(files.requests), steps, kv)


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    if not path.is_file():
        what = "is no folder" if not folder.is_dir() else "is no run: it has no summary.json"
        raise SimllmError(f"{folder}: {what}; give a folder that `simllm run -o` wrote")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SimllmError(f"{path}: cannot be read: {error}") from error
    version = summary.get("schema_version") if isinstance(summary, dict) else None
    if not isinstance(version, int):
        raise SimllmError(f"{path}: is no summary of a run: it has no schema_version")
    if version != SCHEMA_VERSION:
        remedy = "update simllm" if version > SCHEMA_VERSION else "simulate the scenario again"
        raise SimllmError(
            f"{path}: has schema_version {version}, this simllm reads {SCHEMA_VERSION}: {remedy}"
        )
    return summary


def _read_table(path: Path) -> pd.DataFrame:
    """Reads a table without the cells that say what prompts hold, which may be most of its bytes."""
    try:
        names = pa.parquet.read_schema(path).names
        frame: pd.DataFrame = pa.parquet.read_table(
            path, columns=[name for name in names if name != "content"]
        ).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise SimllmError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    return frame
