"""How much of the KV cache holds keys and values that are used: memory x time, over all requests of a run.

A request holds its prompt from the step that admits it and one token more with each of its answer; what it
holds beyond is waste of one kind or another. The integrals are closed forms of the request rows, so that
they cost nothing while the simulation runs.

SIMPLIFIED: an answer's tokens come evenly spaced, a prompt is in the cache from its first step on, and a
preempted request counts as if it had held its blocks throughout; effect: below 1 % of the shares without
preemptions. SIMPLIFIED: shared blocks count once per request that holds them; effect: shares are those
of each request's own table.
Source: the kinds of waste are those of PagedAttention (arXiv 2309.06180) section 3.1 and figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..policy.kv.allocators import power_of_two_from
from ..policy.kv.contiguous import reserved_slots
from ..world.recorder import ReplicaTotals, Status
from .meta import KvLayout
from .metrics import ratio
from .rows import Floats, Ints, RequestRows
from .steps import StepRuns


class Waste(NamedTuple):
    """Token slots x time [s] of one replica, or of several.

    useful: a token is in the slot. reserved: a running request fills it later. internal: it is held, and
    nobody ever fills it. external: it is free while requests wait, and too small a hole for any of them.
    """

    useful: float
    reserved: float
    internal: float
    external: float

    def shares(self) -> dict[str, float | None]:
        """Returns each kind as a share of all; `waste_share` is all but what is useful."""
        total = sum(self)
        useful = ratio(self.useful, total)
        shares = {f"{name}_share": ratio(value, total) for name, value in self._asdict().items()}
        return {**shares, "waste_share": None if useful is None else 1 - useful}


class Holdings:
    """What the finished requests of one replica held of its KV cache, and when.

    Columns have an entry per request: from `start` it holds its `prompt`, from `first` to `end` [s] one token
    more per step until `last` of them are there.
    """

    def __init__(self, rows: RequestRows, layout: KvLayout, totals: ReplicaTotals) -> None:
        mine = rows.with_status(Status.FINISHED) & (rows.replica == totals.replica)
        self._num_slots = totals.num_kv_blocks * totals.block_size
        self._block_size = totals.block_size
        self._start, self._first = rows.scheduled_at[mine], rows.first_token_at[mine]
        self._end = rows.finished_at[mine]
        self._prompt = rows.prompt_tokens[mine].astype(np.int64)
        samples = rows.num_sequences[mine]
        outputs = rows.output_tokens[mine] // samples
        self._last = self._prompt + outputs - 1
        self._samples = samples
        self._region = None if layout.reserve is None else _regions(layout, self._prompt, outputs)

    def waste(self, runs: StepRuns, part: slice) -> Waste:
        """Returns the integrals over the run; `part`: the replica's rows of `runs`."""
        prefill_s, decode_s = self._first - self._start, self._end - self._first
        filled = prefill_s * self._prompt + decode_s * self._mean_tokens()
        if self._region is None:
            held = prefill_s * self._blocks(self._prompt) + decode_s * self._mean_blocks()
            parts = (filled, 0 * filled, held * self._block_size - filled)
        else:
            whole_s = prefill_s + decode_s
            parts = (filled, whole_s * self._last - filled, whole_s * (self._region - self._last))
        useful, reserved, internal = (float((self._samples * part).sum()) for part in parts)
        return Waste(useful, reserved, internal, self._external(runs, part))

    def held_at(self, instants: Floats) -> Floats:
        """Returns the slots that requests hold at each instant [s], each request's own: regions, or blocks.

        SIMPLIFIED: a block is half filled on average; effect: none on the mean of many requests.
        """
        if self._region is not None:
            return _active_sum(instants, self._start, self._end, self._samples * self._region)
        spare = (self._block_size - 1) / 2
        return self.filled_at(instants) + spare * _active_sum(instants, self._start, self._end, self._samples)

    def filled_at(self, instants: Floats) -> Floats:
        """Returns the tokens in the cache at each instant [s], each request's own."""
        steps = self._last - self._prompt
        with np.errstate(divide="ignore", invalid="ignore"):
            pace = np.where(steps > 0, steps / (self._end - self._first), 0.0)
        prompts = _active_sum(instants, self._start, self._end, self._samples * self._prompt)
        # prompt + pace * (t - first), from the first token on
        paces = _active_sum(instants, self._first, self._end, self._samples * pace)
        offsets = _active_sum(instants, self._first, self._end, self._samples * pace * self._first)
        grown: Floats = prompts + paces * instants - offsets
        return grown

    def _external(self, runs: StepRuns, part: slice) -> float:
        """Returns the free slots while requests wait, of contiguous regions: free blocks fit anybody.

        SIMPLIFIED: whatever requests wait for, memory or another limit; effect: none where memory is short.
        """
        if self._region is None:
            return 0.0
        waits = runs.counts["num_waiting"][part] > 0
        num_steps = runs.counts["num_steps"][part][waits]
        bends = num_steps * (num_steps - 1) / 2
        duration_s = num_steps * runs.base_s[part][waits] + bends * runs.slope_s[part][waits]
        free = self._num_slots - self.held_at(runs.started_at[part][waits])
        return float((duration_s * np.maximum(free, 0)).sum())

    def _blocks(self, num_tokens: Ints) -> Ints:
        blocks: Ints = -(-num_tokens // self._block_size)
        return blocks

    def _mean_tokens(self) -> Floats:
        """Returns the mean of each request's tokens over its decode steps; without any, what it ends with."""
        mean: Floats = np.where(self._last > self._prompt, (self._prompt + self._last + 1) / 2, self._last)
        return mean

    def _mean_blocks(self) -> Floats:
        """Returns the mean number of blocks over each request's decode steps, one token more in each.

        An answer of one token has none, but may be held for a while: until its static batch ends.
        """
        steps = self._last - self._prompt
        grown = self._sum_blocks(self._last) - self._sum_blocks(self._prompt)
        mean: Floats = np.where(steps > 0, grown / np.maximum(steps, 1), self._blocks(self._last))
        return mean

    def _sum_blocks(self, num_tokens: Ints) -> Ints:
        """Returns the blocks of 1, 2, ... `num_tokens` tokens, added up."""
        full, rest = np.divmod(num_tokens, self._block_size)
        total: Ints = self._block_size * full * (full + 1) // 2 + rest * (full + 1)
        return total


def holdings_of(
    rows: RequestRows, layouts: Mapping[str, KvLayout], replicas: list[ReplicaTotals]
) -> list[Holdings]:
    """Returns what requests held of each of the replicas."""
    return [Holdings(rows, layouts.get(totals.pool, KvLayout()), totals) for totals in replicas]


def kv_waste(
    rows: RequestRows, runs: StepRuns | None, layouts: Mapping[str, KvLayout], replicas: list[ReplicaTotals]
) -> dict[str, float | None] | None:
    """Returns the shares of all replicas together; None if steps were not recorded."""
    if runs is None:
        return None
    total = np.zeros(len(Waste._fields))
    for totals, holdings in zip(replicas, holdings_of(rows, layouts, replicas), strict=True):
        total += holdings.waste(runs, runs.of_replica(totals.replica))
    return Waste(*total.tolist()).shares()


def _regions(layout: KvLayout, prompts: Ints, outputs: Ints) -> Ints:
    """Returns the slots that each request's region takes up."""
    assert layout.reserve is not None, "a paged layout has no regions"
    wanted = np.asarray(reserved_slots(layout.reserve, prompts, outputs, layout.max_model_len))
    if not layout.rounds_up:
        return wanted
    sizes, place = np.unique(wanted, return_inverse=True)
    rounded: Ints = np.array([power_of_two_from(int(size)) for size in sizes], dtype=np.int64)[place]
    return rounded


def _active_sum(instants: Floats, starts: Floats, ends: Floats, values: Floats | Ints) -> Floats:
    """Returns the sum of the values whose interval [start, end) holds each instant."""

    def until(at: Floats) -> Floats:
        order = np.argsort(at, kind="stable")
        sums = np.concatenate([np.zeros(1), np.cumsum(values[order], dtype=np.float64)])
        found: Floats = sums[np.searchsorted(at[order], instants, side="right")]
        return found

    return until(starts) - until(ends)
