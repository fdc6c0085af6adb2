"""The blocks that running requests still take until each is complete, for engines that promise them ahead."""

from __future__ import annotations

from ..kv.blocks import KvCache, num_blocks_for
from ..live_request import LiveRequest


class CompletionBook:
    """Running requests' blocks to come, added up; a request's whole need is promised when it is admitted.

    num_to_come: blocks that all of them together may still take.
    """

    def __init__(self, kv: KvCache) -> None:
        self._kv = kv
        self._whole: dict[LiveRequest, int] = {}
        self.num_to_come = 0

    @property
    def num_spare(self) -> int:
        """Free blocks that are promised to nobody."""
        return self._kv.num_free - self.num_to_come

    def whole(self, num_tokens: int) -> int:
        """Returns the blocks of a request that fills `num_tokens` slots in the end."""
        return num_blocks_for(num_tokens, self._kv.block_size)

    def promise(self, live: LiveRequest, num_whole: int) -> None:
        """Notes a request that was admitted with its first chunk just now."""
        self._whole[live] = num_whole
        self.num_to_come += num_whole - self._held(live)

    def took(self, num_blocks: int) -> None:
        """Notes blocks that came true."""
        self.num_to_come -= num_blocks

    def ended(self, live: LiveRequest) -> None:
        """Takes back what a request was promised and did not need, if anything."""
        num_whole = self._whole.pop(live, None)
        if num_whole is not None:
            self.num_to_come -= num_whole - self._held(live)

    def _held(self, live: LiveRequest) -> int:
        return num_blocks_for(live.num_computed, self._kv.block_size)
