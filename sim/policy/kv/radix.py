"""The prefix cache of SGLang: a radix tree of all that was computed, locked where requests run.

A prompt's blocks enter the tree when `computed` says that they are there, at the end of each chunk, and an
answer's with those when its request finishes; of what the tree holds already the new copy is dropped. A
request that is retracted adds nothing: what it had entered before stays, the rest is free at once.

Source: SGLang python/sglang/srt/mem_cache/radix_cache.py and managers/schedule_batch.py (behaviour, read
2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable

from ....errors import InvariantError
from ..live_request import LiveRequest
from .blocks import PrefixHit, num_blocks_for
from .ledger import PrefixLedger
from .radix_tree import RadixNode, RadixTree
from .runs import runs_of


class RadixKvCache:
    """Blocks of one replica with SGLang's radix tree; a block is a page.

    policy: order of eviction. keeps_answers: answers enter the tree as well as prompts. at_once: what is
    computed enters the tree as soon as its step is scheduled, for schedulers that don't tell when it has
    been computed.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        policy: str = "lru",
        keeps_answers: bool = True,
        at_once: bool = False,
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self._keeps_answers = keeps_answers
        self._at_once = at_once
        self._num_unused = num_blocks  # blocks without content
        self.tree = RadixTree(policy)
        self._ledger = PrefixLedger(block_size)
        self.stats = self._ledger.stats
        self._ends: dict[LiveRequest, RadixNode] = {}  # where the locked path of a request ends

    @property
    def num_free(self) -> int:
        """Blocks without content, and those that can be evicted."""
        return self._num_unused + self.tree.num_evictable

    @property
    def num_evictable(self) -> int:
        """Cached blocks that nobody has locked."""
        return self.tree.num_evictable

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns the longest cached prefix, one token short of the whole at most.

        As SGLang's matching it makes the prefix the most recently used one, admitted or not.
        """
        limit = (live.num_tokens - 1) // self.block_size
        found, num_unlocked, _ = self.tree.match(runs_of(live, self.block_size), limit)
        return PrefixHit(found, num_unlocked)

    def match_len(self, live: LiveRequest) -> int:
        """Returns the tokens that a look-up would hit, and changes nothing."""
        limit = (live.num_tokens - 1) // self.block_size
        return self.tree.match_len(runs_of(live, self.block_size), limit) * self.block_size

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Locks the blocks of `hit`, counts the look-up, and takes the blocks that the request computes."""
        _, _, node = self.tree.match(runs_of(live, self.block_size), hit.num_blocks)
        self.tree.lock(node)
        self._ends[live] = node
        live.num_cached_blocks = hit.num_blocks
        if not live.num_preemptions:
            self._ledger.admitted(live, hit.num_blocks)
        self.take(num_blocks_for(num_tokens, self.block_size) - hit.num_blocks)
        if self._at_once:
            self.computed(live, num_tokens)

    def take(self, num_blocks: int) -> None:
        """Takes blocks, evicting leaves if those without content don't suffice.

        Raises: InvariantError if num_blocks > num_free.
        """
        lacking = num_blocks - self._num_unused
        if lacking > 0:
            if lacking > self.tree.num_evictable:
                raise InvariantError(f"took {num_blocks} blocks with {self.num_free} free")
            self._num_unused += self.tree.evict(lacking)
        self._num_unused -= num_blocks

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Enters the full blocks of the first `num_tokens` tokens into the tree, and locks them."""
        num_full = num_tokens // self.block_size
        if num_full > live.num_cached_blocks:
            before = self._ends[live]
            node = self._insert(live, num_full, counts=num_tokens >= live.prompt_tokens)
            self.tree.lock(node)
            self.tree.unlock(before)
            self._ends[live] = node
            live.num_cached_blocks = num_full

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Unlocks the request's path and frees its own blocks; a finished one enters all it has computed."""
        num_tokens = live.num_computed
        if not self._keeps_answers:
            num_tokens = min(num_tokens, live.prompt_tokens)
        num_full = num_tokens // self.block_size
        if is_finished and num_full > live.num_cached_blocks:
            self._insert(live, num_full, counts=True)
            live.num_cached_blocks = num_full
        self._num_unused += num_blocks_for(live.num_computed, self.block_size) - live.num_cached_blocks
        self.tree.unlock(self._ends.pop(live))
        live.num_cached_blocks = 0

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held, cached and unused blocks add up to all blocks."""
        own, locked = 0, set[RadixNode]()
        for live, num_computed in holders:
            own += num_blocks_for(num_computed, self.block_size) - live.num_cached_blocks
            node = self._ends.get(live)
            while node is not None:
                locked.add(node)
                node = node.parent
        held = own + sum(node.num_blocks for node in locked)
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")

    def _insert(self, live: LiveRequest, num_full: int, *, counts: bool) -> RadixNode:
        """Enters `num_full` blocks into the tree; of those it holds already the request's own come free."""
        runs, position = runs_of(live, self.block_size), 0
        for key, run_blocks in runs:
            self._ledger.cached(key, min(run_blocks, num_full - position))
            position += run_blocks
            if position >= num_full:
                break
        found, node = self.tree.insert(runs, num_full, priority=live.request.priority, counts=counts)
        self._num_unused += found - live.num_cached_blocks
        return node
