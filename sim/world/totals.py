"""Running sums over a replica's life, for the summary: busy time, its split by term, work, gaps.

Lines of cost are buffered and added up many at a time: a step, or a leap, costs one append of numbers.
"""

from __future__ import annotations

from array import array
from collections import defaultdict

import numpy as np

from ...hwmodels.step import DecodeLine
from ..policy.batch import Batch
from .gaps import GapSketch
from .leap import Leap

_FLUSH_ROWS = 4096


class RunningTotals:
    """Sums of one replica over all its steps.

    The gap between two tokens of a request that continues is the duration of the step that ends it, so the
    steps' lines give the pooled gaps as well; they go to `gaps`.
    attention_pairs: (query, key) pairs of attention. context_tokens: KV entries that attention read.
    steps_by_tokens: number of steps by their tokens, padding left out.
    """

    def __init__(self, terms: tuple[str, ...], gaps: GapSketch) -> None:
        self._terms = terms
        self._gaps = gaps
        self._width = 4 + 2 * len(terms)
        self._buffer = array("d")
        self._sums = np.zeros(len(terms) + 1)
        self.num_steps = 0
        self.num_extrapolated_steps = 0
        self.num_sampled = 0
        self.attention_pairs = 0
        self.context_tokens = 0
        self.steps_by_tokens: defaultdict[int, int] = defaultdict(int)
        self.max_running = 0

    def add(self, batch: Batch, line: DecodeLine) -> None:
        """Adds one step."""
        self._add_line(line, 1, batch.num_continuing)
        self.steps_by_tokens[batch.num_tokens] += 1
        self.num_sampled += batch.num_sampled
        self.attention_pairs += batch.decodes.sum_context
        self.context_tokens += batch.decodes.sum_context
        for query_len, context_len, count in batch.chunks:
            self.attention_pairs += count * (query_len * context_len + query_len * (query_len + 1) // 2)
            self.context_tokens += count * (query_len + context_len)
        if batch.num_running > self.max_running:
            self.max_running = batch.num_running

    def add_leap(self, leap: Leap, num_steps: int) -> None:
        """Adds the first `num_steps` steps of a leap."""
        _, count, sum_context, _ = leap.decodes
        self._add_line(leap.line, num_steps, count)
        self.steps_by_tokens[count] += num_steps
        self.num_sampled += count * num_steps
        contexts = sum_context * num_steps + count * (num_steps * (num_steps - 1) // 2)
        self.attention_pairs += contexts
        self.context_tokens += contexts

    @property
    def num_tokens(self) -> int:
        """Tokens computed, padding left out."""
        return sum(num_tokens * num_steps for num_tokens, num_steps in self.steps_by_tokens.items())

    def busy_s(self) -> float:
        """Returns the time with a step running [s]."""
        self.flush()
        return float(self._sums[0])

    def term_s(self) -> dict[str, float]:
        """Returns the busy time by cost term [s]."""
        self.flush()
        return dict(zip(self._terms, self._sums[1:].tolist(), strict=True))

    def flush(self) -> None:
        """Adds up what is buffered; to be called before the pooled gaps are read."""
        width = len(self._terms) + 1
        rows = np.frombuffer(self._buffer, dtype=np.float64).reshape(-1, self._width)
        num_steps, num_continuing = rows[:, 0], rows[:, 1]
        base_s, slope_s = rows[:, 2 : 2 + width], rows[:, 2 + width :]
        self._sums += num_steps @ base_s + (num_steps * (num_steps - 1) / 2) @ slope_s
        self._gaps.add_runs(base_s[:, 0], slope_s[:, 0], num_steps, num_continuing)
        del rows, num_steps, num_continuing, base_s, slope_s  # views keep an array from growing
        self._buffer = array("d")

    def _add_line(self, line: DecodeLine, num_steps: int, num_continuing: int) -> None:
        base_s, slope_s, _, base_terms, slope_terms, _, is_extrapolated = line
        buffer = self._buffer
        buffer.extend((num_steps, num_continuing, base_s, *base_terms, slope_s, *slope_terms))
        if len(buffer) >= _FLUSH_ROWS * self._width:
            self.flush()
        self.num_steps += num_steps
        if is_extrapolated:
            self.num_extrapolated_steps += num_steps
