"""Running sums over a replica's life, for the summary: busy time, its split by term, work, gaps.

Steps and leaps are buffered and added up many at a time: each costs one append of references.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hwmodels.step import Chunk, DecodeGroup, DecodeLine, StepCost
from ..policy.batch import Batch
from .gaps import GapSketch

_MAX_ROWS = 512  # so few that they are still in the CPU's caches when they are added up
_STEP_FIELDS, _LEAP_FIELDS = 7, 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class RunningTotals:
    """Sums of one replica over all its steps.

    The gap between two tokens of a request that continues is the duration of the step that ends it, so the
    steps' lines give the pooled gaps as well; they go to `gaps`.
    Valid after `flush`. num_sampled: output tokens. attention_pairs: (query, key) pairs of attention.
    context_tokens: KV entries that attention read.
    """

    def __init__(self, terms: tuple[str, ...], gaps: GapSketch) -> None:
        self._terms = terms
        self._gaps = gaps
        # Field after field, row after row.
        self._steps: list[Any] = []
        self._leaps: list[Any] = []
        self._chunks: list[Chunk] = []
        self._busy_s = 0.0
        self._term_s: Floats = np.zeros(len(terms))
        self._steps_by_tokens: Ints = np.zeros(1, dtype=np.int64)
        self.num_steps = 0
        self.num_extrapolated_steps = 0
        self.num_sampled = 0
        self.attention_pairs = 0
        self.context_tokens = 0
        self.max_running = 0

    def add(self, batch: Batch, cost: StepCost, stalled_s: float) -> None:
        """Adds one step; `stalled_s`: time before it in which those who continue waited [s]."""
        if batch.num_running > self.max_running:
            self.max_running = batch.num_running
        self._chunks += batch.chunks
        num_continuing = batch.num_continuing
        if stalled_s > 0.0 and num_continuing:
            self._gaps.add(stalled_s + cost.duration_s, num_continuing)
            num_continuing = 0
        counts = (batch.num_tokens, batch.num_sampled, num_continuing, batch.decodes)
        steps = self._steps
        steps += (*counts, cost.duration_s, cost.terms, cost.is_extrapolated)
        if len(steps) >= _MAX_ROWS * _STEP_FIELDS:
            self._flush_steps()

    def add_leap(self, num_steps: int, decodes: DecodeGroup, line: DecodeLine) -> None:
        """Adds the first `num_steps` steps along `line`, of `decodes` at first."""
        leaps = self._leaps
        leaps += (num_steps, decodes, line)
        if len(leaps) >= _MAX_ROWS * _LEAP_FIELDS:
            self._flush_leaps()

    @property
    def steps_by_tokens(self) -> dict[int, int]:
        """Number of steps by their tokens, padding left out."""
        present = np.flatnonzero(self._steps_by_tokens)
        return dict(zip(present.tolist(), self._steps_by_tokens[present].tolist(), strict=True))

    @property
    def num_tokens(self) -> int:
        """Tokens computed, padding left out."""
        return sum(num_tokens * num_steps for num_tokens, num_steps in self.steps_by_tokens.items())

    def busy_s(self) -> float:
        """Returns the time with a step running [s]."""
        return self._busy_s

    def term_s(self) -> dict[str, float]:
        """Returns the busy time by cost term [s]."""
        return dict(zip(self._terms, self._term_s.tolist(), strict=True))

    def flush(self) -> None:
        """Adds up what is buffered; to be called before anything, the pooled gaps included, is read."""
        if self._steps:
            self._flush_steps()
        if self._leaps:
            self._flush_leaps()

    def _flush_steps(self) -> None:
        steps, chunks, self._steps, self._chunks = self._steps, self._chunks, [], []
        num_tokens, num_sampled, num_continuing, decodes, duration_s, terms, is_extrapolated = (
            steps[field::_STEP_FIELDS] for field in range(_STEP_FIELDS)
        )
        once = np.ones(len(terms))
        self._add_up(once, _floats(num_tokens), _floats(duration_s), terms, is_extrapolated)
        self._gaps.add_runs(_floats(duration_s), np.zeros(len(terms)), once, _floats(num_continuing))
        self.num_sampled += sum(num_sampled)
        _, _, sum_context, _ = zip(*decodes, strict=True)
        pairs = contexts = sum(sum_context)
        for query_len, context_len, count in chunks:
            pairs += count * (query_len * context_len + query_len * (query_len + 1) // 2)
            contexts += count * (query_len + context_len)
        self.attention_pairs += pairs
        self.context_tokens += contexts

    def _flush_leaps(self) -> None:
        leaps, self._leaps = self._leaps, []
        num_steps = _floats(leaps[0::_LEAP_FIELDS])
        later = num_steps * (num_steps - 1) / 2
        _, counts, sum_contexts, _ = zip(*leaps[1::_LEAP_FIELDS], strict=True)
        durations, slopes, _, terms, slope_terms, _, is_extrapolated = zip(
            *leaps[2::_LEAP_FIELDS], strict=True
        )
        count, sum_context = _floats(counts), _floats(sum_contexts)
        base_s, slope_s = _floats(durations), _floats(slopes)
        self._add_up(num_steps, count, base_s, terms, is_extrapolated)
        self._busy_s += float(later @ slope_s)
        self._term_s += later @ _matrix(slope_terms)
        self._gaps.add_runs(base_s, slope_s, num_steps, count)
        self.num_sampled += int(num_steps @ count)
        contexts = int(num_steps @ sum_context + later @ count)
        self.attention_pairs += contexts
        self.context_tokens += contexts

    def _add_up(
        self,
        num_steps: Floats,
        num_tokens: Floats,
        base_s: Floats,
        base_terms: Sequence[tuple[float, ...]],
        is_extrapolated: Sequence[bool],
    ) -> None:
        """Adds rows of `num_steps` equal steps each."""
        self._busy_s += float(num_steps @ base_s)
        self._term_s += num_steps @ _matrix(base_terms)
        self.num_steps += int(num_steps.sum())
        if any(is_extrapolated):
            self.num_extrapolated_steps += int(num_steps @ _floats(is_extrapolated))
        self._count_tokens(num_tokens.astype(np.int64), num_steps)

    def _count_tokens(self, num_tokens: Ints, num_steps: Floats) -> None:
        known = len(self._steps_by_tokens)
        counted = np.bincount(num_tokens, weights=num_steps, minlength=known).astype(np.int64)
        counted[:known] += self._steps_by_tokens
        self._steps_by_tokens = counted


def _floats(values: Sequence[float]) -> Floats:
    return np.fromiter(values, np.float64, len(values))


def _matrix(rows: Sequence[tuple[float, ...]]) -> Floats:
    """Returns (num_rows, num_columns)."""
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * len(rows[0]))
    return flat.reshape(len(rows), -1)
