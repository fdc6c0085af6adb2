"""Requests that KsanaLLM moves to the host and back, and what becomes of their blocks in the tree.

Out: from its tail to its head a request's blocks leave the tree, but for those that other running requests
use too. Back: from head to tail they join it again, as new ones; where the tree has got an equal block
meanwhile, that one is used, by all swapped-out requests that share it. Moves take time: blocks that leave
come free when the move has ended, blocks that return are in the tree when it has.

Source: KsanaLLM src/ksana_llm/cache_manager/prefix_cache_manager.cpp at c451219c (behaviour, read 2026-11).
"""

from __future__ import annotations

from ..live_request import LiveRequest
from .ksana_tree import KsanaNode, KsanaTree


class KsanaSwap:
    """Who is on the host.

    ends: where the path of each request ends, kept with the cache. num_host_blocks: blocks in use on the
    host. num_moving: blocks of the device that are on their way out or in.
    """

    def __init__(self, tree: KsanaTree, ends: dict[LiveRequest, KsanaNode]) -> None:
        self._tree = tree
        self._ends = ends
        self._own: dict[LiveRequest, int] = {}  # blocks outside the tree, of requests that are not running
        self._leaving: dict[LiveRequest, int] = {}
        self._arriving: set[LiveRequest] = set()
        self.num_host_blocks = 0
        self.num_moving = 0

    def num_host_blocks_of(self, live: LiveRequest) -> int:
        """Returns the blocks that a swapped-out request must get back."""
        away = (node for node in self._path(live) if node.is_on_host and not node.is_arriving)
        return self._own[live] + sum(node.num_blocks for node in away)

    def out(self, live: LiveRequest, num_own: int) -> tuple[int, int]:
        """Takes a request's blocks out of the tree; returns how many move, and how many are dropped."""
        num_moved, num_dropped = num_own, 0
        for node in self._may_leave(live):
            num_moved += node.num_blocks
            num_dropped += self._tree.put_to_sleep(node)
        for node in self._path(live):
            node.num_active -= 1
            node.num_inactive += 1
        self._own[live] = num_own
        self._leaving[live] = num_moved
        self.num_host_blocks += num_moved
        self.num_moving += num_moved
        return num_moved, num_dropped

    def left(self, live: LiveRequest) -> int:
        """Returns the blocks that come free on the device now that a request has left it."""
        num_blocks = self._leaving.pop(live)
        self.num_moving -= num_blocks
        return num_blocks

    def back(self, live: LiveRequest) -> None:
        """Begins a request's way back; its blocks on the device have been taken."""
        self.num_moving += self.num_host_blocks_of(live)
        self._arriving.add(live)
        for node in self._path(live):
            node.is_arriving = node.is_on_host

    def arrived(self, live: LiveRequest) -> int:
        """Joins the blocks of a request that is back to the tree; returns how many are there twice."""
        num_own, num_merged = self._own.pop(live), 0
        self._arriving.discard(live)
        self.num_host_blocks -= num_own
        self.num_moving -= num_own
        for node in reversed(self._path(live)):  # from the head
            if node.is_on_host:
                num_merged += self._join(node)
        for node in self._path(live):
            node.num_inactive -= 1
            node.num_active += 1
        return num_merged

    def dropped(self, live: LiveRequest) -> int:
        """Forgets a request on the host; returns the device's blocks that come free."""
        num_own = self._own.pop(live)
        self.num_host_blocks -= num_own
        num_freed = self.left(live) if live in self._leaving else 0
        if live in self._arriving:
            self._arriving.discard(live)
            self.num_moving -= num_own
            num_freed += num_own
        for node in self._path(live):
            node.num_inactive -= 1
            if not node.is_on_host:
                self._tree.released(node)
            elif not node.is_referenced:
                num_freed += self._forget(node)
        del self._ends[live]
        live.num_cached_blocks = 0
        return num_freed

    def _may_leave(self, live: LiveRequest) -> list[KsanaNode]:
        """Returns the runs, from the tail on, that no other running request uses."""
        # SIMPLIFIED: a block stays, too, if another swapped-out request refers to one behind it, which
        # KsanaLLM would free under that request; effect: such a request keeps what it computed.
        leaving: list[KsanaNode] = []
        for node in self._path(live):
            others = (child for child in node.children.values() if not leaving or child is not leaving[-1])
            if node.num_active > 1 or any(child.num_inactive for child in others):
                break
            leaving.append(node)
        return leaving

    def _path(self, live: LiveRequest) -> list[KsanaNode]:
        """Returns the nodes of a request from its tail to its head."""
        path, node = [], self._ends[live]
        while node.parent is not None:
            path.append(node)
            node = node.parent
        return path

    def _join(self, node: KsanaNode) -> int:
        """Puts a run on its way back into the tree, or merges it; returns its blocks that were there."""
        parent = node.parent
        assert parent is not None, "the root is in the tree"
        there = parent.children.get(node.key)
        if there is None:
            self._wake(node, parent)
            self._tree.attach(node, self._tree.step, 0, self._tree.next_serial())
            return 0
        if there.num_blocks < node.num_blocks:
            front = self._tree.split(node, there.num_blocks)
            return self._merge(front, there) + self._join(node)
        if there.num_blocks > node.num_blocks:
            there = self._tree.split(there, node.num_blocks)
        return self._merge(node, there)

    def _merge(self, node: KsanaNode, there: KsanaNode) -> int:
        """Lets all that refers to a run that is back refer to its equal in the tree instead."""
        parent = node.parent
        assert parent is not None, "the root is in the tree"
        self._wake(node, parent)
        if not there.is_referenced:
            self._tree.num_reusable -= there.num_blocks
        there.num_inactive += node.num_inactive
        for sleeper in node.sleepers:
            sleeper.parent = there
        there.sleepers += node.sleepers
        for live, end in self._ends.items():
            if end is node:
                self._ends[live] = there
        return node.num_blocks

    def _wake(self, node: KsanaNode, parent: KsanaNode) -> None:
        parent.sleepers.remove(node)
        node.is_on_host = node.is_arriving = False
        self.num_host_blocks -= node.num_blocks
        self.num_moving -= node.num_blocks

    def _forget(self, node: KsanaNode) -> int:
        """Drops a run on the host; returns its blocks on the device, if it was on its way back."""
        parent = node.parent
        assert parent is not None, "the root is in the tree"
        parent.sleepers.remove(node)
        self.num_host_blocks -= node.num_blocks
        if not node.is_arriving:
            return 0
        self.num_moving -= node.num_blocks
        return node.num_blocks
