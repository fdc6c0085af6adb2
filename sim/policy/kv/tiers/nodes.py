"""What happens to the nodes of a store, told to its content: losses, partitions, and copies made anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..runs import BlockRuns
from .gone import LOST, NAMED
from .outages import Outage
from .runs import PENDING, READY, StoredRun
from .store import Span, TierStore


class CopyJob(NamedTuple):
    """Blocks of which a node gets a copy from another one."""

    chain: BlockRuns
    span: Span
    node: int
    num_blocks: int
    is_rebuild: bool


class StoreNodes:
    """The nodes under one store's content, which must have some."""

    def __init__(self, store: TierStore) -> None:
        assert store.copies is not None and store.gone is not None, "it is a store of several nodes"
        self._store = store
        self.copies = self._copies = store.copies
        self._gone = store.gone

    def happens(self, outage: Outage) -> None:
        """Lets something happen to a node, now."""
        copies, node = self._copies, outage.node
        self._store.at = outage.at
        if outage.kind == "lost":
            if copies.up >> node & 1:
                copies.lost(node)
                self._lose(node)
        elif outage.kind == "cut":
            copies.cut(node, outage.at)
        elif outage.kind == "back":
            copies.back(node)
            self._want_all()
        else:
            copies.healed(node)
            self._want_all()

    def landed(self, runs: BlockRuns, spans: Sequence[Span]) -> None:
        """Hears that a writer's copies have arrived: the store makes the others."""
        for span in spans:
            for run in self._store.tree.cover(runs, *span):
                if self._copies.lacks(run):
                    self._copies.want(run, is_rebuild=False)
        self._copies.wake()

    def spoil(self, runs: BlockRuns, block: int) -> None:
        """Takes out the copy of a block that turned out to be corrupt."""
        for run in self._store.tree.cover(runs, block, block + 1):
            read = run.copies & self._copies.reach
            if run.state == READY and read:
                self._take_copy(run, read & -read)
        self._copies.wake()

    def next_copy(self) -> CopyJob | None:
        """Returns the copy to be made next, None if there is none that can be made."""
        while (wanted := self._copies.next_wanted()) is not None:
            runs = [run for run in self._store.tree.cover(wanted.chain, *wanted.span) if self._can_copy(run)]
            node = self._copies.next_node(runs[0]) if runs else None
            if node is not None:
                num_blocks = sum(run.num_blocks for run in runs if not run.copies >> node & 1)
                return CopyJob(wanted.chain, wanted.span, node, num_blocks, wanted.is_rebuild)
        return None

    def copied(self, job: CopyJob) -> None:
        """Hears that a copy has been made."""
        copies, node = self._copies, 1 << job.node
        for run in self._store.tree.cover(job.chain, *job.span):
            if run.state not in (PENDING, READY) or not copies.lacks(run):
                continue
            if copies.reach & node and not run.copies & node:
                run.copies |= node
                copies.num_in += run.num_blocks
                if job.is_rebuild:
                    copies.num_rebuilt += run.num_blocks
                else:
                    copies.num_replicated += run.num_blocks
            if copies.lacks(run):
                copies.want(run, is_rebuild=job.is_rebuild)

    def num_stale(self, runs: BlockRuns, start: int, limit: int, now: float) -> int:
        """Returns how many blocks from `start` on a look-up names that cannot be loaded."""
        num_blocks = self._gone.match(runs, start, limit, NAMED, now)
        delay_s = self._copies.spec.index_delay_s
        if not num_blocks and delay_s and now < self._copies.cut_at + delay_s:
            return self.num_cut_off(runs, start, limit)
        return num_blocks

    def num_lost(self, runs: BlockRuns, start: int, limit: int, now: float) -> int:
        """Returns how many blocks from `start` on were there and are lost."""
        return self._gone.match(runs, start, limit, LOST, now)

    def num_cut_off(self, runs: BlockRuns, start: int, limit: int) -> int:
        """Returns how many blocks from `start` on are there, the first of them out of reach."""
        if self._store.match(runs, start, limit):
            return 0
        return self._store.tree.match(runs, start, limit)

    def _lose(self, node: int) -> None:
        rebuilds = self._copies.spec.rebuild == "replicas"
        for run in self._store.tree.stored():
            if run.copies >> node & 1:
                self._take_copy(run, 1 << node, rebuilds=rebuilds)

    def _take_copy(self, run: StoredRun, node: int, *, rebuilds: bool = True) -> None:
        """Takes one copy of a run away, and the run if it was the last; else it may be made anew."""
        run.copies &= ~node
        self._copies.num_lost += run.num_blocks
        if run.copies:
            if rebuilds and run.state in (PENDING, READY):
                self._copies.want(run, is_rebuild=True)
        elif run.state == READY:
            self._store.drop_lost(run)

    def _can_copy(self, run: StoredRun) -> bool:
        is_there = run.state in (PENDING, READY) and bool(run.copies & self._copies.reach)
        return is_there and self._copies.lacks(run)

    def _want_all(self) -> None:
        """Looks for what could not be copied before for want of a node."""
        if self._copies.spec.rebuild == "replicas":
            for run in self._store.tree.stored():
                if run.state == READY and self._copies.lacks(run):
                    self._copies.want(run, is_rebuild=True)
