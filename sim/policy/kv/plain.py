"""A KV cache without prefix caching: a number of free blocks."""

from __future__ import annotations

from collections.abc import Iterable

from ....errors import InvariantError
from ....hot_modules import mypyc_attr
from ..live_request import LiveRequest
from .blocks import NO_HIT, PrefixHit, PrefixStats, num_blocks_for


@mypyc_attr(allow_interpreted_subclasses=True)
class PlainKvCache:
    """Counts free blocks; nothing is shared and nothing outlives its request."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self.stats = PrefixStats()

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns no hit: nothing is cached."""
        return NO_HIT

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Takes the blocks of the first `num_tokens` tokens."""
        self.num_free -= -(-num_tokens // self.block_size)
        if self.num_free < 0:
            raise InvariantError(f"took the blocks of {num_tokens} tokens, {-self.num_free} too many")

    def take(self, num_blocks: int) -> None:
        """Takes free blocks."""
        self.num_free -= num_blocks
        if self.num_free < 0:
            raise InvariantError(f"took {num_blocks} blocks with {self.num_free + num_blocks} free")

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Does nothing: content is not tracked."""

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's blocks."""
        self.num_free += -(-live.num_computed // self.block_size)

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        held = sum(num_blocks_for(num_computed, self.block_size) for _, num_computed in holders)
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")
