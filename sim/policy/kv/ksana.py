"""The prefix cache of KsanaLLM: a tree of full blocks, newest ones evicted first, equal ones merged.

A block is shared once it is full: `computed` puts a prompt's into the tree, `release` an answer's. Where the
tree holds the same block already, the request goes on with that one and its own comes free. Swapping is
`ksana_swap.py`'s; the scheduler sets `step` before each call, for the timeline of insertions.

Source: KsanaLLM src/ksana_llm/cache_manager/prefix_cache_manager.cpp at c451219c (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable

from ....errors import InvariantError
from ..live_request import LiveRequest
from .blocks import PrefixHit
from .ksana_swap import KsanaSwap
from .ksana_tree import KsanaNode, KsanaTree
from .ledger import PrefixLedger
from .runs import runs_of


class KsanaKvCache:
    """Blocks of one replica with KsanaLLM's tree.

    shares: whether blocks enter the tree at all; without, requests can still be swapped.
    num_spare_tokens: slots beyond its tokens that a request holds blocks for; KsanaLLM always keeps one.
    hits_whole_prompts: a prompt may be hit to its last token, which the scheduler then computes once more
    without new blocks. at_once: what is computed enters the tree as soon as its step is scheduled, for
    schedulers that don't tell when it has been computed.
    swap: moves requests to the host and back.
    """

    # SIMPLIFIED: no flexible cache, which copies matching runs from elsewhere in the tree when
    # min_flexible_cache_num is set (by default it is not); effect: more prefill tokens with it.

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        shares: bool = True,
        num_spare_tokens: int = 0,
        hits_whole_prompts: bool = False,
        at_once: bool = False,
    ) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self._shares = shares
        self.num_spare_tokens = num_spare_tokens
        self._hits_whole_prompts = hits_whole_prompts
        self._at_once = at_once
        self._num_unused = num_blocks  # blocks without content
        self._tree = KsanaTree()
        self._ends: dict[LiveRequest, KsanaNode] = {}  # where the path of a request ends
        self._places: dict[LiveRequest, int] = {}  # of running requests, in the order of admission
        self._ledger = PrefixLedger(block_size)
        self.stats = self._ledger.stats
        self.swap = KsanaSwap(self._tree, self._ends)

    @property
    def step(self) -> int:
        """The step in which blocks are being filled."""
        return self._tree.step

    @step.setter
    def step(self, step: int) -> None:
        self._tree.step = step

    @property
    def num_free(self) -> int:
        """Blocks without content, and those in the tree to which no request refers."""
        return self._num_unused + self._tree.num_reusable

    def num_held(self, num_tokens: int) -> int:
        """Returns the blocks that a request with so many tokens in the cache holds."""
        return -(-(num_tokens + self.num_spare_tokens) // self.block_size)

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns the longest cached prefix. Does not modify the cache."""
        path = self._match(live, self._limit(live))
        num_free = sum(0 if node.is_referenced else used for node, used in path)
        return PrefixHit(sum(used for _, used in path), num_free)

    def match_len(self, live: LiveRequest) -> int:
        """Returns the tokens that a look-up would hit."""
        return sum(used for _, used in self._match(live, self._limit(live))) * self.block_size

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Gives the request the blocks of `hit`, counts the look-up, and takes what else it needs.

        What it has matched is its own from then on, so that taking blocks does not evict it.
        """
        end, tree = self._tree.root, self._tree
        for node, used in self._match(live, hit.num_blocks):
            end = node if used == node.num_blocks else tree.split(node, used)
            tree.refer(end)
        self._ends[live], self._places[live] = end, tree.next_serial()
        live.num_cached_blocks = hit.num_blocks
        if self._shares and not live.num_preemptions:
            self._ledger.admitted(live, hit.num_blocks)
        self.take(self.num_held(num_tokens) - hit.num_blocks)
        if self._at_once:
            self.computed(live, num_tokens)

    def take(self, num_blocks: int) -> None:
        """Takes blocks, evicting the newest content if those without content don't suffice.

        Raises: InvariantError if num_blocks > num_free.
        """
        lacking = num_blocks - self._num_unused
        if lacking > 0:
            if lacking > self._tree.num_reusable:
                raise InvariantError(f"took {num_blocks} blocks with {self.num_free} free")
            self._tree.evict(lacking)
            self._num_unused += lacking
        self._num_unused -= num_blocks

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Puts the full blocks of the first `num_tokens` tokens into the tree, all filled in this step."""
        self._insert(live, num_tokens // self.block_size)

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's blocks; full ones stay in the tree until they are evicted."""
        self._insert(live, live.num_computed // self.block_size)
        self._num_unused += self.num_held(live.num_computed) - live.num_cached_blocks
        node = self._ends.pop(live)
        del self._places[live]
        while node.parent is not None:
            self._tree.forget(node)
            node = node.parent
        live.num_cached_blocks = 0

    def swap_out(self, live: LiveRequest) -> tuple[int, int]:
        """Begins to move a running request to the host.

        Returns the blocks that move, and those free at once: what nobody refers to behind a block that
        leaves the tree goes with it. The moving ones come free with `swapped_out`.
        """
        self._insert(live, live.num_computed // self.block_size)
        num_own = self.num_held(live.num_computed) - live.num_cached_blocks
        num_moved, num_dropped = self.swap.out(live, num_own)
        self._num_unused += num_dropped
        return num_moved, num_dropped

    def swapped_out(self, live: LiveRequest) -> None:
        """Frees the device's blocks of a request that has been moved to the host."""
        self._num_unused += self.swap.left(live)

    def swap_in(self, live: LiveRequest) -> int:
        """Begins to move a request back, taking blocks for it; returns how many blocks move."""
        num_blocks = self.swap.num_host_blocks_of(live)
        self.take(num_blocks)
        self.swap.back(live)
        return num_blocks

    def swapped_in(self, live: LiveRequest) -> int:
        """Puts a request that has been moved back into the tree; returns the blocks that merging frees."""
        num_merged = self.swap.arrived(live)
        self._num_unused += num_merged
        return num_merged

    def drop_swapped(self, live: LiveRequest) -> None:
        """Forgets a swapped-out request that never comes back."""
        del self._places[live]
        self._num_unused += self.swap.dropped(live)

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held, cached, moving and unused blocks add up to all blocks."""
        own = sum(self.num_held(num_computed) - live.num_cached_blocks for live, num_computed in holders)
        in_tree, reusable = self._tree.blocks()
        if reusable != self._tree.num_reusable:
            raise InvariantError(
                f"reusable: {self._tree.num_reusable} blocks counted, {reusable} in the tree"
            )
        held = own + in_tree - reusable + self.swap.num_moving
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")

    def _limit(self, live: LiveRequest) -> int:
        return (live.num_tokens - (0 if self._hits_whole_prompts else 1)) // self.block_size

    def _match(self, live: LiveRequest, limit: int) -> list[tuple[KsanaNode, int]]:
        """Returns the path of the first `limit` blocks as far as it is cached, and how much of each node."""
        path: list[tuple[KsanaNode, int]] = []
        node = self._tree.root
        for key, run_blocks in runs_of(live, self.block_size):
            while run_blocks and limit:
                child = node.children.get(key)
                if child is None:
                    return path
                used = min(child.num_blocks, run_blocks, limit)
                path.append((child, used))
                run_blocks, limit = run_blocks - used, limit - used
                if used < child.num_blocks:
                    return path
                node = child
        return path

    def _insert(self, live: LiveRequest, num_full: int) -> None:
        """Puts the request's blocks up to `num_full` into the tree, merging with those that are there.

        Those of the prompt were filled in this step, those of the answer one token a step.
        """
        # SIMPLIFIED: as if the request had got a token in each of the last steps; effect: if it sat some
        # out, its answer's blocks count as a little newer than they are.
        start = live.num_cached_blocks
        if num_full <= start or not self._shares:
            return
        end, position, size = self._ends[live], 0, self.block_size
        now, num_prompt = self._tree.step, live.prompt_tokens // size
        for key, run_blocks in runs_of(live, size):
            begin, stop = max(position, start), min(position + run_blocks, num_full)
            if begin < stop:
                self._ledger.cached(key, stop - position)
            while begin < stop:
                if begin < num_prompt:
                    most, stamp, stride = min(stop, num_prompt) - begin, now, 0
                else:
                    most, stamp, stride = stop - begin, now - live.num_computed + (begin + 1) * size, size
                end = self._append(live, end, (key, most), stamp, stride)
                begin += end.num_blocks
            position += run_blocks
            if position >= num_full:
                break
        self._ends[live], live.num_cached_blocks = end, num_full

    def _append(
        self, live: LiveRequest, node: KsanaNode, run: tuple[object, int], stamp: int, stride: int
    ) -> KsanaNode:
        """Returns the run below `node` that holds the next blocks, those of `run` at most."""
        key, num_blocks = run
        child = node.children.get(key)
        if child is None:
            child = KsanaNode(key, num_blocks, node)
            child.num_active = 1
            serial = self._places[live] if stride else self._tree.next_serial()
            self._tree.attach(child, stamp, stride, serial)
            return child
        if child.num_blocks > num_blocks:
            child = self._tree.split(child, num_blocks)
        self._tree.refer(child)
        self._num_unused += child.num_blocks  # merged: its own copy comes free
        return child
