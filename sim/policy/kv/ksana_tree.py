"""KsanaLLM's tree of cached blocks, and the timeline of their insertion, by which it evicts.

A block enters the tree, and the timeline, when it has been filled. What is hit keeps its place in the
timeline. When blocks run out the newest one that no request refers to goes first, so that old prefixes
survive and the ends of recent conversations don't. A child is always newer than its parent, so it is
always a leaf: taking its subtree along, as the engine's code does, takes nothing more.

The tree's nodes are runs of blocks inserted together. Blocks that were filled while an answer was written
are `stride` steps apart.

Source: KsanaLLM src/ksana_llm/cache_manager/prefix_cache_manager.cpp at c451219c (behaviour, read 2026-11).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

_FEW_ENTRIES = 64


class KsanaNode:
    """A run of blocks after its parent's.

    num_active, num_inactive: running and swapped-out requests whose path leads through it. is_on_host: it
    has left the tree with those; sleepers: such runs that came after this one. is_arriving: its way back
    has begun. stamp: the step in which its first block was filled; serial: its place within a step.
    """

    __slots__ = (
        "children",
        "is_arriving",
        "is_on_host",
        "key",
        "num_active",
        "num_blocks",
        "num_inactive",
        "parent",
        "serial",
        "sleepers",
        "stamp",
        "stride",
    )

    def __init__(self, key: object, num_blocks: int, parent: KsanaNode | None) -> None:
        self.key = key
        self.num_blocks = num_blocks
        self.parent = parent
        self.children: dict[object, KsanaNode] = {}
        self.sleepers: list[KsanaNode] = []
        self.num_active = 0
        self.num_inactive = 0
        self.is_on_host = False
        self.is_arriving = False
        self.stamp = 0
        self.stride = 0
        self.serial = 0

    @property
    def last_stamp(self) -> int:
        """The step in which its last block was filled."""
        return self.stamp + (self.num_blocks - 1) * self.stride

    @property
    def is_referenced(self) -> bool:
        """Whether a request refers to it, running or swapped out."""
        return self.num_active > 0 or self.num_inactive > 0


_Entry = tuple[int, int, int, KsanaNode]  # -stamp, -serial, number of the entry, the leaf


class KsanaTree:
    """The tree; `num_reusable` of its blocks no request refers to, `step` is now."""

    def __init__(self) -> None:
        self.root = KsanaNode(None, 0, None)
        self.num_reusable = 0
        self.step = 0
        self._num_nodes = 0
        self._num_serials = 0
        self._num_entries = 0
        # Leaves to evict, the newest first; entries may be stale.
        self._leaves: list[_Entry] = []

    def next_serial(self) -> int:
        """Returns a number larger than all before it."""
        self._num_serials += 1
        return self._num_serials

    def attach(self, node: KsanaNode, stamp: int, stride: int, serial: int) -> None:
        """Puts a run into the tree; it is not older than its parent and not of the future."""
        parent = node.parent
        assert parent is not None, "the root is there from the start"
        node.stamp, node.stride = (
            max(stamp, parent.last_stamp if parent.parent is not None else stamp),
            stride,
        )
        if node.last_stamp > self.step:
            node.stamp, node.stride = self.step, 0
        node.serial = serial
        parent.children[node.key] = node
        self._num_nodes += 1
        if not node.is_referenced:
            self.num_reusable += node.num_blocks
            self._queue(node)

    def refer(self, node: KsanaNode) -> None:
        """Notes that one more running request refers to a run in the tree."""
        if not node.is_referenced:
            self.num_reusable -= node.num_blocks
        node.num_active += 1

    def forget(self, node: KsanaNode) -> None:
        """Notes that one running request less refers to a run in the tree."""
        node.num_active -= 1
        self.released(node)

    def released(self, node: KsanaNode) -> None:
        """Makes a run reusable if no request refers to it any more."""
        if not node.is_referenced:
            self.num_reusable += node.num_blocks
            if not node.children:
                self._queue(node)

    def split(self, node: KsanaNode, num_blocks: int) -> KsanaNode:
        """Cuts `node` after `num_blocks` and returns the new front part; the back keeps its identity."""
        parent = node.parent
        assert parent is not None, "the root is never split"
        front = KsanaNode(node.key, num_blocks, parent)
        front.num_active, front.num_inactive = node.num_active, node.num_inactive
        front.is_on_host, front.is_arriving = node.is_on_host, node.is_arriving
        front.stamp, front.stride, front.serial = node.stamp, node.stride, node.serial
        if node.is_on_host:
            parent.sleepers[parent.sleepers.index(node)] = front
            front.sleepers.append(node)
        else:
            parent.children[node.key] = front
            front.children[node.key] = node
            self._num_nodes += 1
        node.parent = front
        node.num_blocks -= num_blocks
        node.stamp += num_blocks * node.stride
        return front

    def evict(self, num_blocks: int) -> None:
        """Takes the newest `num_blocks` blocks to which no request refers out of the tree."""
        self.num_reusable -= num_blocks
        while num_blocks:
            entry = heappop(self._leaves)
            if not self._is_due(entry):
                continue
            node = entry[3]
            used = self._num_newest(node)
            if used > num_blocks:
                used = num_blocks
            num_blocks -= used
            node.num_blocks -= used
            parent = node.parent
            assert parent is not None, "the root is not in the queue"
            if node.num_blocks:
                self._queue(node)
                continue
            self._detach(node, parent)
            if not parent.children and not parent.is_referenced and parent.parent is not None:
                self._queue(parent)

    def drop(self, node: KsanaNode) -> int:
        """Takes a run, to which no request refers, and all below it out of the tree; returns their blocks."""
        num_blocks, nodes = 0, [node]
        for below in nodes:  # grows as it goes
            nodes += below.children.values()
            num_blocks += below.num_blocks
            parent = below.parent
            assert parent is not None, "the root is never dropped"
            self._detach(below, parent)
        self.num_reusable -= num_blocks
        return num_blocks

    def put_to_sleep(self, node: KsanaNode) -> int:
        """Takes a run out of the tree to the host; returns the blocks below it, which are dropped."""
        parent = node.parent
        assert parent is not None, "the root never leaves"
        num_dropped = sum(self.drop(child) for child in tuple(node.children.values()))
        self._detach(node, parent)
        parent.sleepers.append(node)
        node.is_on_host = True
        return num_dropped

    def blocks(self) -> tuple[int, int]:
        """Returns the blocks in the tree counted one by one, and those to which no request refers."""
        total, unreferenced, nodes = 0, 0, list(self.root.children.values())
        while nodes:
            node = nodes.pop()
            total += node.num_blocks
            unreferenced += 0 if node.is_referenced else node.num_blocks
            nodes += node.children.values()
        return total, unreferenced

    def _detach(self, node: KsanaNode, parent: KsanaNode) -> None:
        del parent.children[node.key]
        self._num_nodes -= 1

    def _num_newest(self, node: KsanaNode) -> int:
        """Returns how many blocks of a leaf just taken from the queue are newer than all other leaves."""
        if not node.stride:
            return node.num_blocks
        leaves = self._leaves
        while leaves and (leaves[0][3] is node or not self._is_due(leaves[0])):
            heappop(leaves)
        if not leaves:
            return node.num_blocks
        stamp, serial, *_ = leaves[0]
        steps, rest = divmod(node.last_stamp + stamp, node.stride)  # >= 0: the other one is not newer
        num_newer = steps + (rest > 0 or node.serial > -serial)
        return num_newer if num_newer < node.num_blocks else node.num_blocks

    @staticmethod
    def _is_due(entry: _Entry) -> bool:
        """Returns whether an entry still says what its node is: a leaf of that age, in the tree."""
        stamp, serial, _, node = entry
        if node.children or node.num_active or node.num_inactive or serial != -node.serial:
            return False
        parent = node.parent
        is_there = parent is not None and parent.children.get(node.key) is node
        return is_there and stamp == -node.stamp - (node.num_blocks - 1) * node.stride

    def _queue(self, node: KsanaNode) -> None:
        leaves = self._leaves
        if len(leaves) > _FEW_ENTRIES + 4 * self._num_nodes:
            leaves[:] = [entry for entry in leaves if self._is_due(entry)]
            heapify(leaves)
        self._num_entries += 1
        heappush(leaves, (-node.last_stamp, -node.serial, self._num_entries, node))
