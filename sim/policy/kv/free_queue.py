"""The queue of unreferenced blocks in order of eviction, as segments instead of single blocks.

Blocks that were released together leave together, so the queue holds runs of blocks: taking n blocks costs
O(segments used up), and a request's hundreds of blocks cost one segment. Blocks may have levels: all of a
lower level leave before any of a higher one.
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

    __slots__ = ("level", "node", "num_blocks")

    def __init__(self, num_blocks: int, node: PrefixNode | None, level: int) -> None:
        self.num_blocks = num_blocks
        self.node = node
        self.level = level


class FreeQueue:
    """Least recently released blocks of the lowest level first; `num_blocks` in all.

    on_evict(node, count) is told when the last `count` blocks of a cached run are taken away.
    first_level: the level of blocks that were never used.
    """

    def __init__(
        self,
        num_blocks: int,
        on_evict: Callable[[PrefixNode, int], None],
        *,
        num_levels: int = 1,
        first_level: int = 0,
    ) -> None:
        first = Segment(num_blocks, None, first_level)
        self.num_blocks = num_blocks
        self._levels: list[OrderedDict[Segment, None]] = [OrderedDict() for _ in range(num_levels)]
        self._levels[first_level][first] = None
        self._newest_dead: list[Segment | None] = [None] * num_levels
        self._newest_dead[first_level] = first
        self._on_evict = on_evict

    def push(self, num_blocks: int, node: PrefixNode | None, level: int = 0) -> Segment | None:
        """Appends blocks to be taken last of their level; neighbours without content become one segment."""
        if num_blocks == 0:
            return None
        self.num_blocks += num_blocks
        if node is None:
            newest = self._newest_dead[level]
            if newest is not None:
                newest.num_blocks += num_blocks
                return newest
        segment = Segment(num_blocks, node, level)
        self._levels[level][segment] = None
        self._newest_dead[level] = segment if node is None else None
        return segment

    def withdraw(self, segment: Segment, num_blocks: int) -> None:
        """Takes cached blocks of a segment out of the queue, because they are referenced again."""
        segment.num_blocks -= num_blocks
        self.num_blocks -= num_blocks
        if segment.num_blocks == 0:
            del self._levels[segment.level][segment]

    def take(self, num_blocks: int) -> None:
        """Takes the oldest blocks; of a cached run the end goes first, as it was released first.

        Raises: InvariantError if there are not so many.
        """
        if num_blocks > self.num_blocks:
            raise InvariantError(f"took {num_blocks} blocks with {self.num_blocks} free")
        self.num_blocks -= num_blocks
        for segments in self._levels:
            while num_blocks and segments:
                segment = next(iter(segments))
                used = segment.num_blocks
                if used > num_blocks:
                    used = num_blocks
                num_blocks -= used
                self._use(segments, segment, used)

    def _use(self, segments: OrderedDict[Segment, None], segment: Segment, used: int) -> None:
        segment.num_blocks -= used
        node = segment.node
        if node is not None:
            self._on_evict(node, used if used < node.num_blocks else node.num_blocks)
        if segment.num_blocks == 0:
            del segments[segment]
            if segment is self._newest_dead[segment.level]:
                self._newest_dead[segment.level] = None

    def total(self) -> int:
        """Returns the blocks counted segment by segment, for checks."""
        return sum(segment.num_blocks for segments in self._levels for segment in segments)
