"""The queue of unreferenced blocks in order of eviction, as segments instead of single blocks.

Blocks that were released together leave together, so the queue holds runs of blocks: taking n blocks costs
O(segments used up), and a request's hundreds of blocks cost one segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ....errors import InvariantError

if TYPE_CHECKING:
    from .prefix import PrefixNode


class Segment:
    """`num_blocks` unreferenced blocks side by side in the queue, those of `node` in front.

    Without a node, and beyond the node's own blocks, they are dead: their content can't be hit again.
    """

    __slots__ = ("node", "num_blocks")

    def __init__(self, num_blocks: int, node: PrefixNode | None) -> None:
        self.num_blocks = num_blocks
        self.node = node


class FreeQueue:
    """Least recently released blocks first; `num_blocks` in all.

    on_evict(node, count) is told when the last `count` blocks of a cached run are taken away.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[PrefixNode, int], None]) -> None:
        first = Segment(num_blocks, None)
        self.num_blocks = num_blocks
        self._segments: OrderedDict[Segment, None] = OrderedDict({first: None})
        self._newest_dead: Segment | None = first
        self._on_evict = on_evict

    def push(self, num_blocks: int, node: PrefixNode | None) -> Segment | None:
        """Appends blocks to be taken last; neighbours without content become one segment."""
        if num_blocks == 0:
            return None
        self.num_blocks += num_blocks
        newest = self._newest_dead
        if node is None and newest is not None:
            newest.num_blocks += num_blocks
            return newest
        segment = Segment(num_blocks, node)
        self._segments[segment] = None
        self._newest_dead = segment if node is None else None
        return segment

    def withdraw(self, segment: Segment, num_blocks: int) -> None:
        """Takes cached blocks of a segment out of the queue, because they are referenced again."""
        segment.num_blocks -= num_blocks
        self.num_blocks -= num_blocks
        if segment.num_blocks == 0:
            del self._segments[segment]

    def take(self, num_blocks: int) -> None:
        """Takes the oldest blocks; of a cached run the end goes first, as it was released first.

        Raises: InvariantError if there are not so many.
        """
        if num_blocks > self.num_blocks:
            raise InvariantError(f"took {num_blocks} blocks with {self.num_blocks} free")
        self.num_blocks -= num_blocks
        while num_blocks:
            segment = next(iter(self._segments))
            used = min(num_blocks, segment.num_blocks)
            num_blocks -= used
            segment.num_blocks -= used
            if segment.node is not None:
                self._on_evict(segment.node, min(used, segment.node.num_blocks))
            if segment.num_blocks == 0:
                self._segments.popitem(last=False)
                if segment is self._newest_dead:
                    self._newest_dead = None

    def total(self) -> int:
        """Returns the blocks counted segment by segment, for checks."""
        return sum(segment.num_blocks for segment in self._segments)
