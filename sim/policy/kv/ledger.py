"""What look-ups found and why they missed the rest, counted in the same way for every cache of prefixes."""

from __future__ import annotations

from ..live_request import LiveRequest
from .blocks import PrefixStats
from .runs import runs_of


class PrefixLedger:
    """Counts hits and misses into `stats`, and remembers how much of each run has ever been cached."""

    __slots__ = ("_block_size", "_reach", "stats")

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._reach: dict[object, int] = {}
        self.stats = PrefixStats()

    def cached(self, key: object, num_blocks: int) -> None:
        """Notes that the first `num_blocks` blocks of a run have been cached."""
        if num_blocks > self._reach.get(key, 0):
            self._reach[key] = num_blocks

    def admitted(self, live: LiveRequest, num_hit_blocks: int, num_copied_tokens: int = 0) -> None:
        """Counts the look-up of a request that is admitted for the first time.

        num_copied_tokens: hit beyond the full blocks.
        """
        size, prompt, stats = self._block_size, live.prompt_tokens, self.stats
        stats.query_tokens += prompt
        stats.hit_tokens += min(num_hit_blocks * size + num_copied_tokens, prompt)
        if num_hit_blocks >= (prompt - 1) // size:  # one token at least is computed, so its block is
            stats.misses["below_block"] += max(prompt - num_hit_blocks * size - num_copied_tokens, 0)
            return
        num_full = prompt // size
        stats.misses["below_block"] += prompt % size
        missed = (num_full - num_hit_blocks) * size - num_copied_tokens
        evicted = 0
        if live.request.content is not None:
            evicted = min(self._known_blocks(live, num_hit_blocks, num_full) * size, missed)
        stats.misses["evicted"] += evicted
        stats.misses["no_shared_prefix"] += missed - evicted

    def _known_blocks(self, live: LiveRequest, begin: int, end: int) -> int:
        """Returns how many of the blocks from `begin` up to `end` had been cached before."""
        known, position, reach = 0, 0, self._reach
        for key, run_blocks in runs_of(live, self._block_size):
            seen = reach.get(key)
            if seen is not None:
                last = position + (seen if seen < run_blocks else run_blocks)
                known += max(min(last, end) - max(position, begin), 0)
            position += run_blocks
            if position >= end:
                break
        return known
