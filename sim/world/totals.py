"""Running sums over a replica's life, for the summary: busy time, its split by term, work, gaps.

Lines of cost are buffered and added up many at a time: a step, or a leap, costs one append of numbers.
"""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np

from ...hwmodels.step import DecodeLine
from ..policy.batch import Batch
from .gaps import GapSketch
from .leap import Leap

_FLUSH_VALUES = 1 << 14
_NUM_COUNTS = 6


class RunningTotals:
    """Sums of one replica over all its steps.

    The gap between two tokens of a request that continues is the duration of the step that ends it, so the
    steps' lines give the pooled gaps as well; they go to `gaps`.
    Valid after `flush`. num_sampled: output tokens. attention_pairs: (query, key) pairs of attention.
    context_tokens: KV entries that attention read. steps_by_tokens: number of steps by their tokens,
    padding left out.
    """

    def __init__(self, terms: tuple[str, ...], gaps: GapSketch) -> None:
        self._terms = terms
        self._gaps = gaps
        self._lines = array("d")
        self._width = _NUM_COUNTS + 3 + 2 * len(terms)
        self._prefill_pairs = 0
        self._prefill_contexts = 0
        self._sums = np.zeros(len(terms) + 1)
        self.num_steps = 0
        self.num_extrapolated_steps = 0
        self.num_sampled = 0
        self.attention_pairs = 0
        self.context_tokens = 0
        self.steps_by_tokens: Counter[int] = Counter()
        self.max_running = 0

    def add(self, batch: Batch, line: DecodeLine) -> None:
        """Adds one step."""
        for query_len, context_len, count in batch.chunks:
            self._prefill_pairs += count * (query_len * context_len + query_len * (query_len + 1) // 2)
            self._prefill_contexts += count * (query_len + context_len)
        if batch.num_running > self.max_running:
            self.max_running = batch.num_running
        base_s, slope_s, _, base_terms, slope_terms, _, is_extrapolated = line
        counts = (1, batch.num_tokens, batch.num_sampled, batch.num_continuing, batch.decodes.sum_context, 0)
        self._lines.extend((*counts, is_extrapolated, base_s, *base_terms, slope_s, *slope_terms))
        if len(self._lines) > _FLUSH_VALUES:
            self.flush()

    def add_leap(self, leap: Leap, num_steps: int) -> None:
        """Adds the first `num_steps` steps of a leap."""
        _, count, sum_context, _ = leap.decodes
        base_s, slope_s, _, base_terms, slope_terms, _, is_extrapolated = leap.line
        counts = (num_steps, count, count, count, sum_context, count)
        self._lines.extend((*counts, is_extrapolated, base_s, *base_terms, slope_s, *slope_terms))
        if len(self._lines) > _FLUSH_VALUES:
            self.flush()

    @property
    def num_tokens(self) -> int:
        """Tokens computed, padding left out."""
        return sum(num_tokens * num_steps for num_tokens, num_steps in self.steps_by_tokens.items())

    def busy_s(self) -> float:
        """Returns the time with a step running [s]."""
        return float(self._sums[0])

    def term_s(self) -> dict[str, float]:
        """Returns the busy time by cost term [s]."""
        return dict(zip(self._terms, self._sums[1:].tolist(), strict=True))

    def flush(self) -> None:
        """Adds up what is buffered; to be called before anything, the pooled gaps included, is read."""
        first, middle = _NUM_COUNTS + 1, _NUM_COUNTS + 2 + len(self._terms)
        rows = np.frombuffer(self._lines, dtype=np.float64).reshape(-1, self._width)
        self._lines = array("d")
        num_steps, num_tokens, num_sampled, num_continuing, contexts, context_slope = rows[:, :6].T
        base_s, slope_s = rows[:, first:middle], rows[:, middle:]
        later = num_steps * (num_steps - 1) / 2
        self._sums += num_steps @ base_s + later @ slope_s
        self._gaps.add_runs(base_s[:, 0], slope_s[:, 0], num_steps, num_continuing)
        decode_contexts = int((contexts * num_steps + context_slope * later).sum())
        self.attention_pairs += decode_contexts + self._prefill_pairs
        self.context_tokens += decode_contexts + self._prefill_contexts
        self._prefill_pairs = self._prefill_contexts = 0
        self.num_steps += int(num_steps.sum())
        self.num_sampled += int((num_sampled * num_steps).sum())
        self.num_extrapolated_steps += int((rows[:, 6] * num_steps).sum())
        for tokens, steps in zip(num_tokens.tolist(), num_steps.tolist(), strict=True):
            self.steps_by_tokens[int(tokens)] += int(steps)
