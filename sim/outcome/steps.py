"""The steps of a run: recorded as straight runs, expanded to one row per step on demand.

`StepRuns` holds a column entry per run, `StepRows` spreads some of the runs over their steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...hwmodels.step import DecodeLine
from ..world.recorder import StepRun

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_COUNTS = tuple(name for name in StepRun._fields if name not in ("started_at", "line", "block_growth"))


@dataclass(frozen=True, slots=True)
class StepRuns:
    """Columns of the runs of a simulation, ordered by replica and step.

    counts: the whole numbers of each `StepRun`, by field name, each (num_runs,).
    base_s, slope_s: (num_runs,), base_terms, slope_terms: (num_terms, num_runs) of the cost lines [s].
    bound: (num_runs,) indexes into `bounds`, the names of what a step was bound by.
    """

    counts: dict[str, Ints]
    started_at: Floats
    base_s: Floats
    slope_s: Floats
    base_terms: Floats
    slope_terms: Floats
    bound: Ints
    bounds: tuple[str, ...]
    is_extrapolated: Flags
    growth: BlockGrowth

    def __len__(self) -> int:
        return len(self.started_at)

    def of_replica(self, replica: int) -> slice:
        """Returns the runs of one replica."""
        start, stop = np.searchsorted(self.counts["replica"], [replica, replica + 1])
        return slice(int(start), int(stop))

    def chunks(self, num_steps: int) -> Iterator[StepRows]:
        """Yields all steps in order, about `num_steps` at a time; at least one, possibly empty, chunk."""
        ends = np.cumsum(self.counts["num_steps"])
        start, done = 0, 0
        while start < len(self):
            stop = max(int(np.searchsorted(ends, done + num_steps, side="right")), start + 1)
            yield self.expand(slice(start, stop))
            start, done = stop, int(ends[stop - 1])
        if not len(self):
            yield self.expand(slice(0, 0))

    def expand(self, runs: slice) -> StepRows:
        """Returns one row for each step of `runs`."""
        num_steps = self.counts["num_steps"][runs]
        run = np.repeat(np.arange(len(self))[runs], num_steps)
        position = np.arange(len(run)) - np.repeat(np.cumsum(num_steps) - num_steps, num_steps)
        return StepRows(self, run, position)

    def max_kv_blocks_used(self, runs: slice) -> int:
        """Returns the most blocks in use after any step of `runs`; blocks only grow within a run."""
        last = self.counts["num_steps"] - 1
        used = self.counts["kv_blocks_used"] + self.growth.after(np.arange(len(self)), last)
        return int(used[runs].max(initial=0))


@dataclass(frozen=True, slots=True)
class BlockGrowth:
    """Blocks that the steps of each run add, kept as running sums over one period of the run.

    sums: the periods of all runs, one after another: sums[start[r] + k] - sums[start[r]] blocks are added by
    the first k steps after the first. period, start: (num_runs,).
    """

    sums: Ints
    period: Ints
    start: Ints

    def after(self, run: Ints, position: Ints) -> Ints:
        """Returns the blocks added to a run's first count when its step `position` was scheduled."""
        start, period = self.start[run], self.period[run]
        cycles, rest = np.divmod(position, period)
        per_cycle = self.sums[start + period] - self.sums[start]
        added: Ints = cycles * per_cycle + self.sums[start + rest] - self.sums[start]
        return added


@dataclass(frozen=True, slots=True)
class StepRows:
    """Some steps, one row each: step `position` (from 0) of run `run` of `runs`; both (num_rows,)."""

    runs: StepRuns
    run: Ints
    position: Ints

    def __len__(self) -> int:
        return len(self.run)

    def count(self, field: str) -> Ints:
        """Returns a whole number that is the same for all steps of a run."""
        return self.runs.counts[field][self.run]

    def on_first(self, field: str) -> Ints:
        """Returns a number of events of a run, all of which befell its first step."""
        return np.where(self.position == 0, self.count(field), 0)

    @property
    def step(self) -> Ints:
        """Number of the step within its replica."""
        return self.count("first_step") + self.position

    @property
    def started_at(self) -> Floats:
        """Instant at which the step began [s]."""
        return self._elapsed(self.position)

    @property
    def ended_at(self) -> Floats:
        """Instant at which the step ended [s]."""
        return self._elapsed(self.position + 1)

    @property
    def duration_s(self) -> Floats:
        """Length of the step [s]."""
        return self._line(self.runs.base_s, self.runs.slope_s)

    def term_s(self, term: int) -> Floats:
        """Returns the seconds that cost term number `term` took."""
        return self._line(self.runs.base_terms[term], self.runs.slope_terms[term])

    @property
    def sum_decode_context(self) -> Ints:
        """Context of all decodes; each decode lengthens it by a token a step."""
        return self.count("sum_decode_context") + self.position * self.count("num_decodes")

    @property
    def kv_blocks_used(self) -> Ints:
        """Blocks in use just after the step was scheduled."""
        return self.count("kv_blocks_used") + self.runs.growth.after(self.run, self.position)

    def _line(self, base: Floats, slope: Floats) -> Floats:
        return base[self.run] + self.position * slope[self.run]

    def _elapsed(self, num_steps: Ints) -> Floats:
        # base + (base + slope) + ... = n base + slope n (n - 1) / 2
        steps = num_steps * self.runs.base_s[self.run]
        bends = num_steps * (num_steps - 1) / 2 * self.runs.slope_s[self.run]
        return self.runs.started_at[self.run] + steps + bends


def step_runs(recorded: Sequence[StepRun], num_terms: int) -> StepRuns:
    """Returns the recorded runs as columns, ordered by replica and step."""
    runs = _columns(StepRun, sorted(recorded))  # (replica, first_step) comes first and names a run
    lines = _columns(DecodeLine, runs["line"])
    bounds = tuple(sorted(set(lines["bound"])))
    codes = {name: code for code, name in enumerate(bounds)}
    return StepRuns(
        counts={name: np.array(runs[name], np.int64) for name in _COUNTS},
        started_at=np.array(runs["started_at"], np.float64),
        base_s=np.array(lines["base_s"], np.float64),
        slope_s=np.array(lines["slope_s"], np.float64),
        base_terms=_matrix(lines["base_terms"], num_terms),
        slope_terms=_matrix(lines["slope_terms"], num_terms),
        bound=np.array([codes[name] for name in lines["bound"]], np.int64),
        bounds=bounds,
        is_extrapolated=np.array(lines["is_extrapolated"], np.bool_),
        growth=_block_growth(runs["block_growth"]),
    )


def _columns(row: type[NamedTuple], rows: Sequence[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Returns the fields of `rows` by name, each from all rows."""
    fields: tuple[str, ...] = row._fields
    return dict(zip(fields, zip(*rows, strict=True) if rows else repeat(()), strict=False))


def _matrix(rows: Sequence[tuple[float, ...]], num_columns: int) -> Floats:
    flat = np.fromiter(chain.from_iterable(rows), np.float64, num_columns * len(rows))
    return np.ascontiguousarray(flat.reshape(len(rows), num_columns).T)


def _block_growth(growths: Sequence[tuple[int, ...]]) -> BlockGrowth:
    periods = [growth or (0,) for growth in growths]
    period = np.fromiter(map(len, periods), np.int64, len(periods))
    added = np.fromiter(chain.from_iterable(periods), np.int64, int(period.sum()))
    sums = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(added)])
    return BlockGrowth(sums=sums, period=period, start=np.cumsum(period) - period)
