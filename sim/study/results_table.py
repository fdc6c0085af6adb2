"""The results of a sweep as one table: a row per point in the points' order, whoever ran them and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ...version import __version__
from ..outcome.files import whole_file
from .orders import Answer
from .points import Point, axis_cells
from .study_spec import StudySpec

FILE_NAME = "results.parquet"
OK, FAILED = "ok", "failed"
_INTERVAL_S = 10.0


def results_table(study: StudySpec, points: Sequence[Point], answers: Mapping[str, Answer]) -> pa.Table:
    """Returns the points that are done: axes, seed, status, error, and the numbers of their summaries."""
    done = [(point, answer) for point in points if (answer := _answer(point, answers)) is not None]
    rows = [answer.row or {} for _, answer in done]
    cells: dict[str, list[Any]] = {
        **axis_cells(study, [point for point, _ in done]),
        "seed": [point.seed for point, _ in done],
        "point": [point.digest for point, _ in done],
        "status": [FAILED if answer.row is None else OK for _, answer in done],
        "error": [answer.error for _, answer in done],
    }
    metrics = dict.fromkeys(key for row in rows for key in row)
    cells |= {key: [row.get(key) for row in rows] for key in metrics}
    table = pa.table({name: _column(values) for name, values in cells.items()})
    return table.replace_schema_metadata({"simllm_version": __version__, "study": study.name})


class ResultsFile:
    """The table as a file, written anew now and then while answers come in, and at the end of the block.

    Always whole, and the same bytes for the same answers. What it lacks for some seconds the journal has.
    """

    def __init__(
        self, path: Path, study: StudySpec, points: Sequence[Point], answers: Mapping[str, Answer]
    ) -> None:
        self._path, self._study, self._points, self._answers = path, study, points, answers
        self._written_at = monotonic()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()

    def refresh(self) -> None:
        """Writes the file if the last time was long ago."""
        if monotonic() - self._written_at > _INTERVAL_S:
            self._write()

    def table(self) -> pa.Table:
        """Returns the table of the answers there are."""
        return results_table(self._study, self._points, self._answers)

    def _write(self) -> None:
        with whole_file(self._path) as partial:
            pyarrow.parquet.write_table(self.table(), partial)
        self._written_at = monotonic()


def _answer(point: Point, answers: Mapping[str, Answer]) -> Answer | None:
    if point.payload is None:
        return Answer(point.digest, None, point.error, 0.0)
    return answers.get(point.digest)


def _column(values: Sequence[Any]) -> pa.Array:
    """Returns a column of one type: whole numbers, numbers, flags, or else text; None is null."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
