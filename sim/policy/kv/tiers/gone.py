"""What a store kept and keeps no more: what its index still names, and what was lost."""

from __future__ import annotations

from collections import deque

from ..runs import BlockRuns
from .runs import ABSENT, READY, RunTree, StoredRun

NAMED, LOST = 1, 2
"""Marks of what is gone: the index names it still; it was lost, not evicted."""

Span = tuple[int, int]


class GoneIndex:
    """Blocks that are gone, lost ones until they are stored again; the index names them for `delay_s` [s]."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._tree = RunTree(_nothing_to_do)
        self._named: deque[tuple[float, BlockRuns, Span]] = deque()

    def note(self, runs: BlockRuns, span: Span, now: float, *, is_lost: bool) -> None:
        """Notes that a span has gone at an instant [s]."""
        if not (self._delay_s or is_lost):
            return
        until = now + self._delay_s
        for run in self._tree.cover(runs, *span, grows=True):
            run.state, run.rank = READY, (until, 0.0)
            run.copies = (NAMED if self._delay_s else 0) | (LOST if is_lost else 0)
        if self._delay_s:
            self._named.append((until, runs, span))

    def forget(self, runs: BlockRuns, span: Span) -> None:
        """Notes that a span is stored again."""
        for run in self._tree.cover(runs, *span):
            self._clear(run, NAMED | LOST)

    def match(self, runs: BlockRuns, start: int, limit: int, mark: int, now: float) -> int:
        """Returns how many blocks from `start` on have a mark, without a gap, at an instant [s]."""
        while self._named and self._named[0][0] <= now:
            until, chain, span = self._named.popleft()
            for run in self._tree.cover(chain, *span):
                if run.rank[0] <= until:
                    self._clear(run, NAMED)
        return self._tree.match(runs, start, limit, mark)

    def _clear(self, run: StoredRun, marks: int) -> None:
        run.copies &= ~marks
        if not run.copies and run.state == READY:
            run.state = ABSENT
            self._tree.prune(run)


def _nothing_to_do(front: StoredRun, back: StoredRun) -> None:
    """The marks of a run that is cut in two are copied with it."""
