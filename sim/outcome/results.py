"""The result of a run: what `simulate` returns, and the one door to pandas."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SimllmError
from ..workload.demand import Demand
from ..world.recorder import Recorder
from .files import whole_folder, write_summary, write_table
from .itls import inter_token_latencies
from .kv_waste import holdings_of
from .meta import RunMeta
from .rows import Floats, request_rows
from .steps import StepRuns, step_runs
from .summary import Summary, summarise
from .tables import TableStream, kv_table, request_table, step_table

if TYPE_CHECKING:
    import pandas as pd


class Result:
    """Everything that a run tells: tables, summary and files.

    Tables are built anew on each access, so keep what is used twice. pandas is loaded on the first one.
    """

    def __init__(self, recorder: Recorder, demand: Demand, meta: RunMeta) -> None:
        self._recorder = recorder
        self.meta = meta
        # Step rows are only needed, and put in order, where they tell when reasoning ended.
        runs = None if demand.reasoning_tokens is None else self._runs
        self._rows, self._reasons = request_rows(recorder, demand, runs)

    @property
    def requests(self) -> pd.DataFrame:
        """One row per request, in the order of the workload."""
        return _frame(request_table(self._rows, self._reasons, self.meta))

    @property
    def steps(self) -> pd.DataFrame:
        """One row per engine step, by replica and step.

        Raises: SimllmError if steps were not recorded.
        """
        return _frame(step_table(self._recorded_runs(), self.meta))

    @property
    def kv(self) -> pd.DataFrame:
        """KV blocks in use over time, by replica and tier; totals are in the summary.

        Raises: SimllmError if steps were not recorded.
        """
        return _frame(self._kv_table(self._recorded_runs()))

    def summary(self) -> Summary:
        """Returns the scalars of the run, None where unknown; `definitions` in it says what they mean."""
        return deepcopy(self._summary)

    def itls(self, request_id: int) -> Floats:
        """Returns the gaps between the tokens of one request [s], as `vllm bench serve` details them.

        Raises: SimllmError if steps were not recorded, or if its tokens did not come one in each step.
        """
        runs = self._recorded_runs()
        return inter_token_latencies(self._rows, runs, request_id, self._recorder)

    def save(self, directory: str | Path) -> None:
        """Writes the run's files; the folder appears whole or not at all, and replaces an earlier run's.

        Without step rows there is no `steps.parquet` and no `kv.parquet`.

        Raises: SimllmError if the folder holds anything else, or cannot be written.
        """
        runs = self._runs
        with whole_folder(Path(directory)) as folder:
            requests = request_table(self._rows, self._reasons, self.meta)
            write_table(requests, parquet=folder / "requests.parquet", csv=folder / "requests.csv")
            if runs is not None:
                write_table(step_table(runs, self.meta), parquet=folder / "steps.parquet")
                write_table(self._kv_table(runs), parquet=folder / "kv.parquet")
            write_summary(self._summary, folder / "summary.json")
            (folder / "scenario.lock.yaml").write_text(self.meta.lock_yaml, encoding="utf-8")

    def _kv_table(self, runs: StepRuns) -> TableStream:
        recorder = self._recorder
        holdings = holdings_of(self._rows, self.meta.kv_layouts, recorder.replicas)
        return kv_table(runs, recorder.replicas, recorder.ended_at, recorder.tiers, holdings)

    @cached_property
    def _summary(self) -> Summary:
        return summarise(self._recorder, self._rows, self._runs, self.meta)

    @cached_property
    def _runs(self) -> StepRuns | None:
        steps = self._recorder.steps
        return None if steps is None else step_runs(steps, len(self.meta.terms))

    def _recorded_runs(self) -> StepRuns:
        if self._runs is None:
            raise SimllmError("steps were not recorded in this run; simulate with record_steps=True")
        return self._runs


def _frame(stream: TableStream) -> pd.DataFrame:
    frame: pd.DataFrame = stream.read_all().to_pandas()
    return frame
