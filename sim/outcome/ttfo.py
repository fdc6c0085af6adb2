"""When the first token that is not reasoning came: recovered from the step rows.

A decoding request gets one token at the end of every step, so the token after its reasoning came as many
steps after its first token as it reasoned tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..workload.demand import Demand
from ..world.recorder import Recorder
from .steps import StepRuns

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def first_output_at(recorder: Recorder, demand: Demand, runs: StepRuns | None) -> Floats:
    """Returns when each request's first token came that is not reasoning [s]; nan where none has come.

    SIMPLIFIED: the tokens of a request that got none in some step (preempted, paused, one of several samples)
    and of all without step rows are spread evenly from the first to the last; effect: TTFO of these is off by
    the unevenness of their gaps.
    """
    first = np.frombuffer(recorder.first_token_at, dtype=np.float64)
    if demand.reasoning_tokens is None:
        return first
    last = np.frombuffer(recorder.finished_at, dtype=np.float64)
    parallel = 1 if demand.num_samples is None else demand.num_samples
    num_tokens = np.frombuffer(recorder.output_tokens, dtype=np.int64) // parallel
    reasons = demand.reasoning_tokens > 0
    # An answer that was cut within its reasoning has no output.
    is_reached = reasons & (demand.reasoning_tokens < num_tokens)
    share = demand.reasoning_tokens / np.maximum(num_tokens - 1, 1)
    at = np.where(is_reached, first + share * (last - first), np.where(reasons, np.nan, first))
    if runs is not None:
        replicas = np.frombuffer(recorder.replica, dtype=np.int32)
        for replica in np.unique(runs.counts["replica"]).tolist():
            served = np.flatnonzero(is_reached & (replicas == replica))
            thought, tokens = demand.reasoning_tokens[served], num_tokens[served]
            exact = _by_steps(recorder, thought, tokens, served, runs, replica)
            at[served] = np.where(np.isnan(exact), at[served], exact)
    return at


def _by_steps(
    recorder: Recorder, reasoning: Ints, num_tokens: Ints, rows: Ints, runs: StepRuns, replica: int
) -> Floats:
    """Returns the instants of requests that got a token in each step from first to last; nan for others."""
    first_end = np.frombuffer(recorder.first_step_ended_at, dtype=np.float64)[rows]
    last_end = np.frombuffer(recorder.last_step_ended_at, dtype=np.float64)[rows]
    heard_s = np.frombuffer(recorder.first_token_at, dtype=np.float64)[rows] - first_end
    ends = StepEnds(runs, replica)
    first_step, last_step = ends.step_at(first_end), ends.step_at(last_end)
    ended_at = ends.of(np.minimum(first_step + reasoning, last_step))
    in_each = last_step - first_step == num_tokens - 1
    result: Floats = np.where(in_each, ended_at + heard_s, np.nan)
    return result


class StepEnds:
    """When the steps of one replica ended, found without expanding its runs."""

    def __init__(self, runs: StepRuns, replica: int) -> None:
        own = runs.of_replica(replica)
        self._started_at = runs.started_at[own]
        self._base_s, self._slope_s = runs.base_s[own], runs.slope_s[own]
        self._num_steps = runs.counts["num_steps"][own]
        self._before = np.cumsum(self._num_steps) - self._num_steps  # steps before each run

    def of(self, step: Ints) -> Floats:
        """Returns the ends of steps, counted from the replica's first [s]."""
        run = np.searchsorted(self._before, step, side="right") - 1
        return self._elapsed(run, step - self._before[run] + 1)

    def step_at(self, ended_at: Floats) -> Ints:
        """Returns the steps whose ends are nearest to these instants [s]."""
        run = np.maximum(np.searchsorted(self._started_at, ended_at) - 1, 0)
        low, high = self._before[run] - 1, self._before[run] + self._num_steps[run]
        low, high = np.maximum(low, 0), np.minimum(high, self._before[-1] + self._num_steps[-1] - 1)
        while (high - low > 1).any():
            middle = (low + high) // 2
            is_after = self.of(middle) > ended_at
            low, high = np.where(is_after, low, middle), np.where(is_after, middle, high)
        nearer_low = np.abs(self.of(low) - ended_at) <= np.abs(self.of(high) - ended_at)
        result: Ints = np.where(nearer_low, low, high)
        return result

    def _elapsed(self, run: Ints, num_steps: Ints) -> Floats:
        # base + (base + slope) + ... = n base + slope n (n - 1) / 2
        bends = num_steps * (num_steps - 1) / 2 * self._slope_s[run]
        result: Floats = self._started_at[run] + num_steps * self._base_s[run] + bends
        return result
