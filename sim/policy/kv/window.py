"""A KV cache that keeps the newest tokens of a request, and perhaps its first ones: the rest is freed.

A request holds its whole prompt until all of it has been computed; when it begins to decode, the blocks
beyond its window are freed, and from then on it takes a block only while its window still fills up.
SIMPLIFIED: chunks of a prompt hold what they will drop later; effect: more blocks in use while long prompts
are computed. SIMPLIFIED: schedulers refuse a request whose whole length exceeds the cache; effect: none
unless the cache is smaller than one request.
Source: StreamingLLM (arXiv 2309.17453) section 3.2: attention sinks and a rolling window.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from ....errors import InvariantError
from ....hwmodels.step import DecodeGroup
from ..decode_set import NEVER, DecodeSet
from ..live_request import LiveRequest
from .blocks import KvCache, num_blocks_for
from .plain import PlainKvCache


class WindowKvCache(PlainKvCache):
    """Free blocks, of which a decoding request holds `most_blocks` at most.

    sink_tokens: first tokens that stay. window_tokens: newest tokens that stay; unless it ends with a block,
    a window lies in one block more than it fills.
    """

    def __init__(self, *, num_blocks: int, block_size: int, window_tokens: int, sink_tokens: int) -> None:
        super().__init__(num_blocks=num_blocks, block_size=block_size)
        self.most_blocks = (
            num_blocks_for(sink_tokens, block_size) + num_blocks_for(window_tokens, block_size) + 1
        )
        self._trimmed: set[LiveRequest] = set()

    def trim(self, live: LiveRequest) -> int:
        """Frees what a request that begins to decode holds beyond its window; returns how many blocks."""
        if live in self._trimmed:
            return 0
        self._trimmed.add(live)
        num_freed = max(0, num_blocks_for(live.num_computed, self.block_size) - self.most_blocks)
        self.num_free += num_freed
        return num_freed

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's blocks."""
        self.num_free += self._held(live, live.num_computed)
        self._trimmed.discard(live)

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        held = sum(self._held(live, num_computed) for live, num_computed in holders)
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")

    def _held(self, live: LiveRequest, num_computed: int) -> int:
        blocks = num_blocks_for(num_computed, self.block_size)
        return min(blocks, self.most_blocks) if live in self._trimmed else blocks


class WindowDecodeSet(DecodeSet):
    """Decodes over a `WindowKvCache`: those whose window is full begin no new blocks.

    next_fill: the first step in which some window is full; leaps end before it.
    """

    __slots__ = ("_fills", "_full", "_growing", "_has_freed", "_kv", "next_fill")

    def __init__(self, kv: WindowKvCache) -> None:
        super().__init__(kv.block_size)
        self._kv = kv
        # A heap, in which entries of who has left stay behind.
        self._fills: list[tuple[int, int, int, LiveRequest]] = []
        self._growing: dict[LiveRequest, int] = {}
        self._full: set[LiveRequest] = set()
        self.next_fill = NEVER
        self._has_freed = False

    def join(self, live: LiveRequest, step: int) -> None:
        """Adds a request whose first decode step is `step`, and frees what lies outside its window."""
        self._has_freed = self._kv.trim(live) > 0 or self._has_freed
        super().join(live, step)
        # Its context is base + s in step s; the window is full where that begins one block too many.
        fill_step = self._kv.most_blocks * self.block_size + 1 - live.context_base
        self._growing[live] = fill_step
        heappush(self._fills, (fill_step, live.index, live.sample, live))
        self._forget()
        self.fill(step)

    def leave(self, live: LiveRequest, step: int) -> None:
        """Removes a request that takes no part in `step` or later, and settles its counts."""
        if live in self._full:
            self._full.discard(live)
            self.block_needs[(1 - live.context_base) % self.block_size] += 1
        else:
            del self._growing[live]
        super().leave(live, step)
        self._forget()

    @property
    def num_growing(self) -> int:
        """Decodes whose windows still fill up."""
        return len(self._growing)

    def fill(self, step: int) -> None:
        """Lets the windows that are full in `step` take no more blocks."""
        while self.next_fill <= step:
            _, _, _, live = heappop(self._fills)
            del self._growing[live]
            self._full.add(live)
            self.block_needs[(1 - live.context_base) % self.block_size] -= 1
            self._forget()

    def ahead(self, step: int, num_blocks: int) -> tuple[int, DecodeGroup, bool] | None:
        """Returns what `DecodeSet.ahead` does, up to the step in which a window is full.

        None where blocks have come free since a step was decided in full: who waits may be admitted.
        """
        if self._has_freed:
            return None
        self.fill(step + 1)
        found = super().ahead(step, num_blocks)
        if found is None or step + found[0] < self.next_fill:
            return found
        return self.next_fill - 1 - step, found[1], False

    def blocks_for(self, step: int) -> int:
        """Returns the new blocks that `step` takes, which is being decided."""
        self._has_freed = False
        self.fill(step)
        return super().blocks_for(step)

    def blocks_for_steps(self, first_step: int, num_steps: int) -> int:
        """Returns the new blocks that `num_steps` steps take, if nobody joins, leaves or fills up."""
        self.fill(first_step)
        return super().blocks_for_steps(first_step, num_steps)

    def _forget(self) -> None:
        """Drops entries of requests that have left, and finds the next window that is full."""
        fills = self._fills
        while fills and self._growing.get(fills[0][3]) != fills[0][0]:
            heappop(fills)
        self.next_fill = fills[0][0] if fills else NEVER


def decode_set_for(kv: KvCache) -> DecodeSet:
    """Returns the books of the decodes that a cache's requests need."""
    return WindowDecodeSet(kv) if isinstance(kv, WindowKvCache) else DecodeSet(kv.block_size)
