"""What a sweep found: its results as tidy tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...errors import SimllmError, nearest_choice
from .defaults import CONFIDENCE
from .intervals import intervals, paired_differences
from .points import cell
from .results_table import FAILED, OK

if TYPE_CHECKING:
    import pandas as pd

# What tables show unless asked for other columns of the results.
METRICS = (
    "request_throughput",
    "output_throughput",
    "output_throughput_per_gpu",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "p99_tpot_ms",
    "mean_e2el_ms",
)


class StudyResult:
    """The points of a study that are done. pandas is loaded on the first access to a table."""

    def __init__(self, table: pa.Table, axes: Sequence[str], num_points: int) -> None:
        self.table = table
        self.axes = tuple(axes)
        self.num_points = num_points

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per point: axes, `seed`, `status`, `error`, and the numbers of the run's summary."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    @property
    def num_done(self) -> int:
        """Points with a result or an error."""
        return int(self.table.num_rows)

    @property
    def errors(self) -> list[str]:
        """The errors of the points that failed, in the order of the points."""
        statuses, errors = self.table["status"].to_pylist(), self.table["error"].to_pylist()
        return [error for status, error in zip(statuses, errors, strict=True) if status == FAILED]

    def intervals(self, metrics: Sequence[str] = METRICS, confidence: float = CONFIDENCE) -> pd.DataFrame:
        """Returns mean and confidence interval of each metric over the seeds, a row per point and metric."""
        return intervals(self._ok(metrics), self.axes, metrics, confidence)

    def differences(
        self,
        axis: str,
        baseline: Any,
        metrics: Sequence[str] = METRICS,
        confidence: float = CONFIDENCE,
    ) -> pd.DataFrame:
        """Returns how each value of `axis` differs from `baseline` on the same requests, seed by seed.

        Raises: SimllmError for an axis or a value that the study has not.
        """
        return paired_differences(self._ok(metrics), self.axes, axis, cell(baseline), metrics, confidence)

    def _ok(self, metrics: Sequence[str]) -> pd.DataFrame:
        frame = self.frame
        for metric in metrics:
            if metric not in frame and OK in set(frame["status"]):
                nearest = nearest_choice(metric, map(str, frame.columns))
                hint = "" if nearest is None else f"; did you mean {nearest!r}?"
                raise SimllmError(f"{metric}: is no column of the results{hint}")
        return frame[frame["status"] == OK]
