"""The nodes of one store: which are there, where copies lie, and which are yet to be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from ..runs import BlockRuns
from .runs import StoredRun
from .store_spec import StoreSpec

Nodes = int
"""A set of nodes: bit n stands for node n."""


class Wanted(NamedTuple):
    """A span whose copies are too few; what is used most comes first, of equals the beginning of a prompt.

    is_rebuild: there were enough before.
    """

    coldness: int
    first_block: int
    number: int
    chain: BlockRuns
    span: tuple[int, int]
    is_rebuild: bool


class StoreCopies:
    """Where a store keeps its copies.

    reach: nodes that are there and not cut off. Sums over its life, a block's copies each: num_in,
    num_evicted, num_lost; num_rebuilt of those made by the store in place of lost ones, num_replicated of
    those made after an early write. num_refused: writes for which too few nodes were within reach.
    """

    def __init__(self, spec: StoreSpec) -> None:
        self.spec = spec
        self._all: Nodes = (1 << spec.num_nodes) - 1
        self.up: Nodes = self._all
        self.reach: Nodes = self._all
        self.cut_at = 0.0  # when the last node was cut off [s]
        self.num_in = self.num_evicted = self.num_lost = 0
        self.num_rebuilt = self.num_replicated = self.num_refused = 0
        self.on_wanted: Callable[[], None] | None = None  # makes copies
        self._num_cuts = [0] * spec.num_nodes
        self._wanted: list[Wanted] = []
        self._numbers = count()

    @property
    def share_up(self) -> float:
        """Share of the nodes that are there."""
        return self.up.bit_count() / self.spec.num_nodes

    @property
    def can_write(self) -> bool:
        """Whether enough nodes are within reach for a block to be readable."""
        return self.reach.bit_count() >= self.spec.num_acks

    def lost(self, node: int) -> None:
        """Notes that a node is lost."""
        self.up &= ~(1 << node)
        self._note_reach()

    def back(self, node: int) -> None:
        """Notes that a node is there again."""
        self.up |= 1 << node
        self._note_reach()

    def cut(self, node: int, now: float) -> None:
        """Notes that the network cuts a node off."""
        self._num_cuts[node] += 1
        self.cut_at = now
        self._note_reach()

    def healed(self, node: int) -> None:
        """Notes that one partition less cuts a node off."""
        self._num_cuts[node] -= 1
        self._note_reach()

    def place(self, run: StoredRun) -> Nodes:
        """Returns the nodes that a writer sends a run to."""
        nodes = [node for node in self._order(run) if self.reach >> node & 1][: self.spec.num_acks]
        return sum(1 << node for node in nodes)

    def next_node(self, run: StoredRun) -> int | None:
        """Returns the node that is to get one more copy of a run, None if there is none."""
        free = self.reach & ~run.copies
        return next((node for node in self._order(run) if free >> node & 1), None)

    def lacks(self, run: StoredRun) -> bool:
        """Returns whether a run has copies, but fewer than it should."""
        return 0 < run.copies.bit_count() < self.spec.replication

    def want(self, run: StoredRun, *, is_rebuild: bool) -> None:
        """Notes that a run's copies are too few."""
        span = (run.first_block, run.first_block + run.num_blocks)
        number = next(self._numbers)
        wanted = Wanted(-run.num_hits, run.first_block, number, run.path(), span, is_rebuild)
        heappush(self._wanted, wanted)

    def wake(self) -> None:
        """Tells who makes copies that some may be wanted."""
        if self.on_wanted is not None:
            self.on_wanted()

    def next_wanted(self) -> Wanted | None:
        """Takes out what comes next, None if nothing does."""
        return heappop(self._wanted) if self._wanted else None

    def _note_reach(self) -> None:
        cut = sum(1 << node for node, number in enumerate(self._num_cuts) if number)
        self.reach = self.up & ~cut

    def _order(self, run: StoredRun) -> Sequence[int]:
        """Returns all nodes in the order in which a run prefers them.

        Each (content, stripe) has an order of its own, which a node's loss does not change for the others.
        Source: Thaler and Ravishankar, Using name-based mappings to increase hit rates, IEEE/ACM ToN 1998
        (highest random weight).
        """
        stripe = run.first_block // self.spec.stripe_blocks
        # The tuples hold integers alone, whose hashes are the same in every process.
        return sorted(range(self.spec.num_nodes), key=lambda node: hash((run.key, stripe, node, node)))
