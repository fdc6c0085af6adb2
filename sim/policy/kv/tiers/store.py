"""What one tier holds: capacity, eviction and the law that nothing comes out that did not go in."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from .....errors import InvariantError
from ..runs import BlockRuns
from .copies import StoreCopies
from .eviction.base import Eviction, Use
from .gone import GoneIndex
from .runs import ABSENT, LEAVING, PENDING, READY, Rank, RunTree, StoredRun

Span = tuple[int, int]
"""Blocks of a chain from the first up to, not including, the second."""

_Entry = tuple[Rank, int, int, StoredRun]
# Entries of the queue that later uses have outdated: it is made anew when they are the greater part.
_MIN_QUEUE = 64


class Evicted(NamedTuple):
    """Blocks that have left a tier: a chain, and the span of it."""

    runs: BlockRuns
    span: Span


class TierStore:
    """The content of one tier, perhaps shared by replicas.

    capacity_blocks may change (`resize`). num_used: blocks taken, those on their way in included. Sums over
    its life: num_inserted, num_evicted, num_lost blocks; what expired counts as evicted. copies: where they
    lie if it is a store of several nodes (see `nodes.py` for what happens to these); gone: what it had.
    """

    def __init__(
        self, name: str, capacity_blocks: int, eviction: Eviction, copies: StoreCopies | None = None
    ) -> None:
        self.name = name
        self.capacity_blocks = capacity_blocks
        self.num_used = 0
        self.num_inserted = 0
        self.num_evicted = 0
        self.num_lost = 0
        self.copies = copies
        self.gone = None if copies is None else GoneIndex(copies.spec.index_delay_s)
        self.at = 0.0  # of its last use or loss [s]
        self._eviction = eviction
        self.tree = RunTree(self._was_split)
        self._queues: list[list[_Entry]] = [[] for _ in range(eviction.num_parts)]
        self._part_blocks = [0] * eviction.num_parts
        self._tickets = count()
        self._num_ranked = 0  # runs with a valid entry in the queue
        self._num_uses = 0
        self._floor = 0.0

    def use(self, at: float, turn: int = 0) -> Use:
        """Returns the next use of the tier, at an instant [s], by the `turn` of a conversation."""
        self._num_uses += 1
        self.at = at
        return Use(self._num_uses, at, turn, self._floor)

    def match(self, runs: BlockRuns, start: int, limit: int) -> int:
        """Returns how many blocks of a chain from `start` on can be loaded, up to block `limit`."""
        return self.tree.match(runs, start, limit, -1 if self.copies is None else self.copies.reach)

    def touch(self, runs: BlockRuns, stop: int, use: Use) -> None:
        """Notes that a request uses the first `stop` blocks of a chain, wherever it finds them."""
        for run in self.tree.cover(runs, 0, stop):
            if run.state != ABSENT:
                run.num_hits += 1
                self._rank(run, use)

    def insert(self, runs: BlockRuns, span: Span, use: Use) -> tuple[list[Span], list[Evicted]]:
        """Makes room for what is missing of a span, from its beginning as far as room can be made.

        Returns the spans that are on their way in from now on, to be `complete`d, and what had to go.
        """
        if self.copies is not None and not self.copies.can_write:
            self.copies.num_refused += 1
            return [], []
        found = self.tree.cover(runs, *span, grows=True)
        if self.copies is not None:
            found = self._striped(found, self.copies.spec.stripe_blocks)
        self._pin(found)
        missing = sum(run.num_blocks for run in found if run.state == ABSENT)
        evicted = self.evict(missing - (self.capacity_blocks - self.num_used))
        room = self.capacity_blocks - self.num_used
        spans: list[Span] = []
        for run in found:
            if run.state != ABSENT:
                self._unpin(run)
                if missing:
                    self._rank(run, use)  # what goes on is in use
                continue
            run.num_pins -= 1
            if room > 0:
                room -= self._take_in(run, room, use, spans)
            else:
                self.tree.prune(run)
        if self.gone is not None:
            for taken_in in spans:
                self.gone.forget(runs, taken_in)
        return spans, evicted

    def complete(self, runs: BlockRuns, spans: Iterable[Span]) -> None:
        """Notes that spans have arrived: they can be loaded, and evicted, from now on."""
        for span in spans:
            for run in self.tree.cover(runs, *span):
                if run.state == PENDING:
                    run.state = READY if run.copies else LEAVING
                    self._unpin(run)

    def pin(self, runs: BlockRuns, span: Span) -> None:
        """Keeps a span until it is unpinned: it is being loaded."""
        self._pin(self.tree.cover(runs, *span))

    def unpin(self, runs: BlockRuns, span: Span) -> None:
        """Lets a span be evicted again."""
        for run in self.tree.cover(runs, *span):
            self._unpin(run)

    def evict(self, num_blocks: int) -> list[Evicted]:
        """Evicts so many blocks, as far as there are, the lowest rank first.

        Of a run the end goes first, and before a run what follows it: without it that could not be hit.
        """
        evicted: list[Evicted] = []
        while num_blocks > 0 and (run := self._lowest()) is not None:
            run = _leaf_behind(run)
            tail = self.tree.cut_tail(run, min(num_blocks, run.num_blocks))
            num_blocks -= tail.num_blocks
            self._floor = max(self._floor, tail.rank[0])
            evicted.append(self._drop(tail))
        return evicted

    def expire(self, now: float) -> list[Evicted]:
        """Drops what the policy keeps no longer than until now [s]."""
        dropped: list[Evicted] = []
        self.at = now
        if self._eviction.expires:
            while (run := self._lowest()) is not None and run.rank[0] <= now:
                dropped.append(self._drop(run))
        return dropped

    def resize(self, capacity_blocks: int) -> list[Evicted]:
        """Changes the capacity; returns what no longer fits."""
        self.capacity_blocks = capacity_blocks
        return self.evict(self.num_used - capacity_blocks)

    def check(self) -> None:
        """Raises: InvariantError unless what went in is there, evicted or lost, by blocks and by copies."""
        stored = num_copies = 0
        for run in self.tree.stored():
            stored += run.num_blocks
            num_copies += run.num_blocks * run.copies.bit_count()
        if not self.num_inserted - self.num_evicted - self.num_lost == self.num_used == stored:
            sums = f"in {self.num_inserted} - evicted {self.num_evicted} - lost {self.num_lost}"
            raise InvariantError(f"tier {self.name}: {sums} != used {self.num_used}, stored {stored}")
        copies = self.copies
        if copies is not None and copies.num_in - copies.num_evicted - copies.num_lost != num_copies:
            sums = f"in {copies.num_in} - evicted {copies.num_evicted} - lost {copies.num_lost}"
            raise InvariantError(f"tier {self.name}: copies {sums} != there {num_copies}")

    def _take_in(self, run: StoredRun, room: int, use: Use, spans: list[Span]) -> int:
        """Takes in what fits of an absent run, returns its blocks, and adds it to the spans."""
        tail = None
        if run.num_blocks > room:
            tail = self.tree.cut_tail(run, run.num_blocks - room)
            assert tail.parent is not None, "what is cut off has a front"
            run = tail.parent
        run.state, run.num_pins, run.num_hits, run.added, run.part = PENDING, 1, 0, use.number, 0
        if self.copies is not None:
            run.copies = self.copies.place(run)
            self.copies.num_in += run.num_blocks * run.copies.bit_count()
        if tail is not None:
            self.tree.prune(tail)
        self.num_used += run.num_blocks
        self.num_inserted += run.num_blocks
        self._part_blocks[run.part] += run.num_blocks
        self._rank(run, use)
        first, end = run.first_block, run.first_block + run.num_blocks
        if spans and spans[-1][1] == first:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((first, end))
        return run.num_blocks

    def _pin(self, runs: Iterable[StoredRun]) -> None:
        for run in runs:
            run.num_pins += 1

    def _unpin(self, run: StoredRun) -> None:
        run.num_pins -= 1
        if run.num_pins:
            return
        if run.state == LEAVING:
            self.drop_lost(run)
        elif run.ticket < 0:
            self._enter(run)

    def _rank(self, run: StoredRun, use: Use) -> None:
        part = run.part
        run.rank = self._eviction.rank(run, use)
        if run.part != part:
            self._part_blocks[part] -= run.num_blocks
            self._part_blocks[run.part] += run.num_blocks
        self._enter(run)

    def _enter(self, run: StoredRun) -> None:
        """Gives a run its place in the queue for eviction; of equals the one deeper in its chain is first."""
        self._num_ranked += run.ticket < 0
        run.ticket = next(self._tickets)
        queue = self._queues[run.part]
        heappush(queue, (run.rank, -run.first_block, run.ticket, run))
        if len(queue) > 4 * self._num_ranked + _MIN_QUEUE:
            queue[:] = [entry for entry in queue if entry[2] == entry[3].ticket]
            heapify(queue)

    def _lowest(self) -> StoredRun | None:
        """Returns the run to be evicted first, None if all are pinned or there are none."""
        for part in self._eviction.order(self._part_blocks):
            queue = self._queues[part]
            while queue:
                _, _, ticket, run = queue[0]
                if ticket == run.ticket and not run.num_pins:
                    return run
                heappop(queue)
                if ticket == run.ticket:  # it enters again when it is unpinned
                    self._leave(run)
        return None

    def _leave(self, run: StoredRun) -> None:
        if run.ticket >= 0:
            run.ticket = -1
            self._num_ranked -= 1

    def drop_lost(self, run: StoredRun) -> None:
        """Takes out a run without copies; as soon as nothing has it pinned."""
        if run.num_pins:
            run.state = LEAVING
            return
        self.num_lost += run.num_blocks
        self._remove(run, is_lost=True)

    def _drop(self, run: StoredRun) -> Evicted:
        self.num_evicted += run.num_blocks
        if self.copies is not None:
            self.copies.num_evicted += run.num_blocks * run.copies.bit_count()
        return self._remove(run, is_lost=False)

    def _remove(self, run: StoredRun, *, is_lost: bool) -> Evicted:
        end = run.first_block + run.num_blocks
        gone = Evicted(run.path(), (run.first_block, end))
        if self.gone is not None:
            self.gone.note(*gone, self.at, is_lost=is_lost)
        self._leave(run)
        self._eviction.dropped(run, gone.runs)
        self._part_blocks[run.part] -= run.num_blocks
        run.state = ABSENT
        self.num_used -= run.num_blocks
        self.tree.prune(run)
        return gone

    def _striped(self, runs: Iterable[StoredRun], stripe_blocks: int) -> list[StoredRun]:
        """Returns the runs with the absent ones cut where a stripe ends."""
        cut: list[StoredRun] = []
        for run in runs:
            end = run.first_block + run.num_blocks
            while run.state == ABSENT and (after := end - _next_stripe(run.first_block, stripe_blocks)) > 0:
                self.tree.cut_tail(run, after)
                assert run.parent is not None, "what is cut off has a front"
                cut.append(run.parent)
            cut.append(run)
        return cut

    def _was_split(self, front: StoredRun, back: StoredRun) -> None:
        if back.ticket >= 0:
            self._enter(front)


def _leaf_behind(run: StoredRun) -> StoredRun:
    """Returns the end of the chain behind a run, by the lowest ranks; the run itself if nothing follows."""
    while True:
        following = [child for child in run.children.values() if child.state == READY and not child.num_pins]
        if not following:
            return run
        run = min(following, key=lambda child: child.rank)


def _next_stripe(block: int, stripe_blocks: int) -> int:
    """Returns where the stripe after that of a block begins."""
    return (block // stripe_blocks + 1) * stripe_blocks
