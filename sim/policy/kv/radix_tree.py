"""SGLang's radix tree: what is cached, as a tree whose edges are runs of pages.

A page is a block of the cache; with blocks of one token the tree branches at any token, as SGLang's does by
default. Every look-up and every insertion touches the path that it walks, and cuts a node in which it ends.
Running requests lock their path. What is locked by nobody may be evicted, leaf by leaf and a whole leaf at a
time, in the order of a policy.

Source: SGLang python/sglang/srt/mem_cache/radix_cache.py and evict_policy.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from .radix_order import Rank, rank_of
from .runs import BlockRuns

_FEW_ENTRIES = 64


class RadixNode:
    """An edge of the tree: the pages `runs` after those of its parent.

    num_locks: running requests whose path leads through it. accessed_at, created_at: ticks of the tree.
    num_hits: insertions that led through it, those of prompts still in chunks left out. is_cached: it has
    not been evicted.
    """

    __slots__ = (
        "accessed_at",
        "children",
        "created_at",
        "is_cached",
        "num_blocks",
        "num_hits",
        "num_locks",
        "parent",
        "priority",
        "runs",
    )

    def __init__(
        self, runs: list[tuple[object, int]], parent: RadixNode | None, *, tick: int, priority: int
    ) -> None:
        self.runs = runs
        self.num_blocks = sum(num_blocks for _, num_blocks in runs)
        self.parent = parent
        self.children: dict[object, RadixNode] = {}
        self.accessed_at = self.created_at = tick
        self.priority = priority
        self.num_hits = 0
        self.num_locks = 0
        self.is_cached = True


class RadixTree:
    """The tree, and its leaves in order of eviction.

    num_evictable: blocks that nobody has locked.
    """

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.root = RadixNode([], None, tick=0, priority=0)
        self.num_evictable = 0
        self.on_evict: Callable[[RadixNode], None] | None = None  # told before it goes
        self.num_nodes = 0
        self._tick = 0
        # Leaves to evict, the next one first; an entry whose rank is not its node's any more is stale.
        self._leaves: list[tuple[Rank, int, RadixNode]] = []
        self._num_entries = 0

    def match(self, runs: BlockRuns, limit: int) -> tuple[int, int, RadixNode]:
        """Returns how many of the first `limit` blocks are cached, how many of them unlocked, and their end.

        Touches the path, and cuts the node in which it ends.
        """
        self._tick = now = self._tick + 1
        found, num_unlocked, node, cursor = 0, 0, self.root, _Cursor(runs, limit)
        while (child := node.children.get(cursor.key)) is not None:
            shared = cursor.skip(child.runs)
            child.accessed_at = now
            node = child if shared == child.num_blocks else self._split(child, shared)
            if not child.children and not child.num_locks:
                self._queue(child)
            found += shared
            num_unlocked += 0 if node.num_locks else shared
            if node is not child:
                break
        return found, num_unlocked, node

    def match_len(self, runs: BlockRuns, limit: int) -> int:
        """Returns how many of the first `limit` blocks are cached, and touches nothing."""
        found, node, cursor = 0, self.root, _Cursor(runs, limit)
        while (child := node.children.get(cursor.key)) is not None:
            shared = cursor.skip(child.runs)
            found += shared
            if shared < child.num_blocks:
                break
            node = child
        return found

    def insert(
        self, runs: BlockRuns, num_blocks: int, *, priority: int, counts: bool
    ) -> tuple[int, RadixNode]:
        """Caches the first `num_blocks` blocks; returns how many were there already, and the last node.

        counts: whether it is a hit of the nodes on its path.
        """
        self._tick = now = self._tick + 1
        found, node, cursor = 0, self.root, _Cursor(runs, num_blocks)
        while (child := node.children.get(cursor.key)) is not None:
            shared = cursor.skip(child.runs)
            child.accessed_at = now
            node = child if shared == child.num_blocks else self._split(child, shared)
            node.priority = max(node.priority, priority)
            node.num_hits += counts
            if not child.children and not child.num_locks:
                self._queue(child)
            found += shared
        rest = cursor.rest()
        if rest:
            self._tick += 1  # newer than what was touched on the way
            new = RadixNode(rest, node, tick=self._tick, priority=priority)
            new.num_hits = int(counts)
            node.children[rest[0][0]] = new
            self.num_nodes += 1
            self.num_evictable += new.num_blocks
            self._queue(new)
            node = new
        return found, node

    def lock(self, node: RadixNode) -> None:
        """Keeps the path to `node` from being evicted."""
        while node.parent is not None:
            if node.num_locks == 0:
                self.num_evictable -= node.num_blocks
            node.num_locks += 1
            node = node.parent

    def unlock(self, node: RadixNode) -> None:
        """Takes one lock off the path to `node`."""
        while node.parent is not None:
            node.num_locks -= 1
            if node.num_locks == 0:
                self.num_evictable += node.num_blocks
                if not node.children:
                    self._queue(node)
            node = node.parent

    def evict(self, num_blocks: int) -> int:
        """Evicts whole leaves until `num_blocks` blocks have gone; returns how many have."""
        evicted = 0
        while evicted < num_blocks and self._leaves:
            rank, _, node = heappop(self._leaves)
            if not self._is_due(node, rank):
                continue
            evicted += node.num_blocks
            if self.on_evict is not None:
                self.on_evict(node)
            parent = node.parent
            assert parent is not None, "the root is not in the queue"
            del parent.children[node.runs[0][0]]
            node.is_cached = False
            self.num_nodes -= 1
            if not parent.children and not parent.num_locks and parent.parent is not None:
                self._queue(parent)
        self.num_evictable -= evicted
        return evicted

    def _is_due(self, node: RadixNode, rank: Rank) -> bool:
        is_leaf = node.is_cached and not node.children and not node.num_locks
        return is_leaf and rank_of(self._policy, node) == rank

    def _queue(self, node: RadixNode) -> None:
        """Puts an unlocked leaf in its place in order of eviction."""
        if len(self._leaves) > _FEW_ENTRIES + 4 * self.num_nodes:
            self._leaves = [entry for entry in self._leaves if self._is_due(entry[2], entry[0])]
            heapify(self._leaves)
        self._num_entries += 1
        heappush(self._leaves, (rank_of(self._policy, node), self._num_entries, node))

    def _split(self, node: RadixNode, num_blocks: int) -> RadixNode:
        """Cuts `node` after `num_blocks` and returns the new front part; the back keeps its identity.

        The front is created and accessed now, after what was touched on the way; the back keeps its age.
        """
        self._tick += 1
        parent = node.parent
        assert parent is not None, "the root is never split"
        front_runs, back_runs = _cut(node.runs, num_blocks)
        front = RadixNode(front_runs, parent, tick=self._tick, priority=node.priority)
        front.num_locks, front.num_hits = node.num_locks, node.num_hits
        front.children[back_runs[0][0]] = node
        parent.children[front_runs[0][0]] = front
        node.parent, node.runs, node.num_blocks = front, back_runs, node.num_blocks - num_blocks
        self.num_nodes += 1
        return front


class _Cursor:
    """A place in the first `limit` blocks of a request's runs; `key` names the next one, None at the end."""

    __slots__ = ("_index", "_left", "_limit", "_runs", "key")

    def __init__(self, runs: BlockRuns, limit: int) -> None:
        self._runs = runs
        self._index = -1
        self._left = 0  # blocks of the current run
        self._limit = limit
        self.key: object = None
        self._step_on()

    def _step_on(self) -> None:
        self._index += 1
        if self._limit <= 0 or self._index >= len(self._runs):
            self.key, self._left = None, 0
            return
        self.key, num_blocks = self._runs[self._index]
        self._left = min(num_blocks, self._limit)

    def skip(self, runs: list[tuple[object, int]]) -> int:
        """Passes the blocks that are equal to `runs`, and returns how many they are."""
        shared = 0
        for key, num_blocks in runs:
            if key != self.key:
                break
            used = num_blocks if num_blocks < self._left else self._left
            shared += used
            self._left -= used
            self._limit -= used
            if not self._left:
                self._step_on()
            if used < num_blocks:
                break
        return shared

    def rest(self) -> list[tuple[object, int]]:
        """Returns the runs from here on."""
        rest: list[tuple[object, int]] = []
        while self.key is not None:
            rest.append((self.key, self._left))
            self._limit -= self._left
            self._step_on()
        return rest


def _cut(
    runs: list[tuple[object, int]], num_blocks: int
) -> tuple[list[tuple[object, int]], list[tuple[object, int]]]:
    """Returns the first `num_blocks` blocks of `runs`, and the rest."""
    for i, (key, run_blocks) in enumerate(runs):
        if num_blocks < run_blocks:
            front = [*runs[:i], (key, num_blocks)] if num_blocks else runs[:i]
            return front, [(key, run_blocks - num_blocks), *runs[i + 1 :]]
        num_blocks -= run_blocks
    raise AssertionError("cut beyond the end")
