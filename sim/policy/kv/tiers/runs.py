"""Content as a tree of runs of blocks: what one tier knows of chains of blocks, stored or not.

A chain is named by its (key, number of blocks) runs from the beginning of the prompt, as in
`kv/prefix.py`. Unlike there, the beginning of a chain may be absent while its end is stored: a tier that
takes what the one above evicts gets the end first.
"""

from __future__ import annotations

from collections.abc import Callable

from ..runs import BlockRuns

ABSENT, PENDING, READY, LEAVING = 0, 1, 2, 3
"""States of a run: not stored; on its way in; stored and usable; lost, but a load under way still has it."""

Rank = tuple[float, float]
"""Whose rank is lowest is evicted first."""


class StoredRun:
    """A run of blocks that begins `first_block` blocks into its chain; its blocks have one state and rank.

    num_pins: moves under way that need it. num_hits: uses since it was stored. added: number of the use that
    stored it. part: of those that the policy keeps. ticket: names its valid entry in the queue for eviction,
    -1 without one. copies: nodes of a store that have it, bit n for node n.
    """

    __slots__ = (
        "added",
        "children",
        "copies",
        "first_block",
        "key",
        "num_blocks",
        "num_hits",
        "num_pins",
        "parent",
        "part",
        "rank",
        "state",
        "ticket",
    )

    def __init__(self, key: object, num_blocks: int, parent: StoredRun | None) -> None:
        self.key = key
        self.num_blocks = num_blocks
        self.parent = parent
        self.first_block: int = 0 if parent is None else parent.first_block + parent.num_blocks
        self.children: dict[object, StoredRun] = {}
        self.state = ABSENT
        self.num_pins = 0
        self.num_hits = 0
        self.added = 0
        self.rank: Rank = (0.0, 0.0)
        self.part = 0
        self.ticket = -1
        self.copies = 1

    def path(self) -> BlockRuns:
        """Returns the chain up to the end of this run."""
        runs: list[tuple[object, int]] = []
        node: StoredRun = self
        while node.parent is not None:
            size = node.num_blocks
            if runs and runs[-1][0] == node.key:
                size += runs.pop()[1]
            runs.append((node.key, size))
            node = node.parent
        return tuple(reversed(runs))


class RunTree:
    """All chains of one tier. on_split(front, back) is told when a run is cut in two."""

    def __init__(self, on_split: Callable[[StoredRun, StoredRun], None]) -> None:
        self.root = StoredRun(None, 0, None)
        self._on_split = on_split

    def match(self, runs: BlockRuns, start: int, limit: int, reach: int = -1) -> int:
        """Returns how many blocks from `start` on are ready without a gap, up to block `limit`.

        reach: of their copies, those that count.
        """
        node, position = self.root, 0
        for key, run_blocks in runs:
            left = min(run_blocks, limit - position)
            while left > 0:
                child = node.children.get(key)
                used = 0 if child is None else min(child.num_blocks, left)
                if child is None or (
                    position + used > start and (child.state != READY or not child.copies & reach)
                ):
                    return max(position - start, 0)
                position, left, node = position + used, left - used, child
                if used < child.num_blocks:
                    return max(position - start, 0)
            if position >= limit:
                break
        return max(position - start, 0)

    def cover(self, runs: BlockRuns, start: int, stop: int, *, grows: bool = False) -> list[StoredRun]:
        """Returns the runs that hold exactly the blocks from `start` to `stop`, cutting some in two.

        Stops where the tree ends, unless it `grows`.
        """
        node, position, found = self.root, 0, list[StoredRun]()
        for key, run_blocks in runs:
            left = min(run_blocks, stop - position)
            while left > 0:
                size = left if position >= start else min(left, start - position)
                child = node.children.get(key)
                if child is None:
                    if not grows:
                        return found
                    child = node.children[key] = StoredRun(key, size, node)
                elif child.num_blocks > size:
                    child = self._split(child, size)
                if position >= start:
                    found.append(child)
                position, left, node = position + child.num_blocks, left - child.num_blocks, child
            if position >= stop:
                break
        return found

    def stored(self) -> list[StoredRun]:
        """Returns all runs that are not absent."""
        found, left = list[StoredRun](), [self.root]
        while left:
            run = left.pop()
            left += run.children.values()
            if run.state != ABSENT:
                found.append(run)
        return found

    def cut_tail(self, run: StoredRun, num_blocks: int) -> StoredRun:
        """Returns the last `num_blocks` blocks of a run as a run of their own."""
        if num_blocks < run.num_blocks:
            self._split(run, run.num_blocks - num_blocks)
        return run

    def prune(self, run: StoredRun) -> None:
        """Forgets a run that is absent, and those before it, as far as nothing follows or is pinned."""
        while not (run.state or run.children or run.num_pins) and run.parent is not None:
            del run.parent.children[run.key]
            run = run.parent

    def _split(self, run: StoredRun, num_blocks: int) -> StoredRun:
        """Cuts `run` after `num_blocks` and returns the new front part; the back keeps its identity."""
        parent = run.parent
        assert parent is not None, "the root is never split"
        front = StoredRun(run.key, num_blocks, parent)
        front.children[run.key] = run
        parent.children[run.key] = front
        run.parent = front
        run.num_blocks -= num_blocks
        run.first_block += num_blocks
        front.state, front.num_pins, front.num_hits = run.state, run.num_pins, run.num_hits
        front.added, front.rank, front.part = run.added, run.rank, run.part
        front.copies = run.copies
        self._on_split(front, run)
        return front
