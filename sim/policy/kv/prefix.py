"""The prefix cache of vLLM V1: chained block hashes, least recently released blocks evicted first.

Chains of full blocks form a tree whose nodes are runs of blocks that live and die together. A request
holds the path from the root to its deepest node. As in vLLM, blocks count as cached as soon as the step
that computes them is scheduled, at least one token of a prompt is always computed, and of a released chain
the tail is evicted first. TensorRT-LLM's tree of blocks differs by what `block_reuse.py` says.

Source: vLLM v1 kv_cache_manager.py and block_pool.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ....errors import InvariantError
from ..live_request import LiveRequest
from .block_reuse import BlockReuse, copied_tokens, count_start
from .blocks import NO_HIT, PrefixHit, num_blocks_for
from .free_queue import FreeQueue, Segment
from .ledger import PrefixLedger
from .runs import runs_of


class PrefixNode:
    """A run of cached blocks after its parent's.

    num_holders: requests whose path leads through it. num_copies: times that the GPU holds its content,
    more than one where requests computed the same at the same time. segment: its place in the free queue,
    if nobody holds it; level: of the queue. starts: how many children that begin inside a content run have
    how many tokens of it, by id and tokens; kept where blocks are reused in part.
    """

    __slots__ = (
        "children",
        "key",
        "level",
        "num_blocks",
        "num_copies",
        "num_holders",
        "parent",
        "segment",
        "starts",
    )

    def __init__(self, key: object, num_blocks: int, parent: PrefixNode | None, level: int = 0) -> None:
        self.key = key
        self.num_blocks = num_blocks
        self.parent = parent
        self.level = level
        self.children: dict[object, PrefixNode] = {}
        self.num_holders = 0
        self.num_copies = 1
        self.segment: Segment | None = None
        self.starts: dict[object, dict[int, int]] | None = None


class PrefixKvCache:
    """Blocks of one replica with prefix caching.

    reuse: TensorRT-LLM's rules in place of vLLM's.
    """

    def __init__(self, *, num_blocks: int, block_size: int, reuse: BlockReuse | None = None) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self._reuse = reuse
        self._ledger = PrefixLedger(block_size)
        self.stats = self._ledger.stats
        self._root = PrefixNode(None, 0, None)
        self.on_evict: Callable[[PrefixNode, int], None] | None = None  # told before they go
        self._prompt_level = self._output_level = 0
        if reuse is None:
            self._queue = FreeQueue(num_blocks, self._evicted)
        else:
            self._prompt_level, self._output_level, unused, num_levels = reuse.levels()
            self._queue = FreeQueue(num_blocks, self._evicted, num_levels=num_levels, first_level=unused)

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, cached or not."""
        return self._queue.num_blocks

    def lookup(self, live: LiveRequest) -> PrefixHit:
        """Returns the longest cached prefix, one token short of the whole at most."""
        if live.request.content is None and not live.num_preemptions:
            return NO_HIT
        limit = (live.num_tokens - 1) // self.block_size
        path: list[tuple[PrefixNode, int]] = []
        num_free, found, node = 0, 0, self._root
        is_inside = False  # the path ends before the last node does
        for key, run_blocks in runs_of(live, self.block_size):
            while run_blocks and found < limit and not is_inside:
                child = node.children.get(key)
                if child is None:
                    break
                used = child.num_blocks
                if used > run_blocks:
                    used = run_blocks
                if used > limit - found:
                    used = limit - found
                path.append((child, used))
                num_free += used if child.num_holders == 0 else 0
                found, run_blocks = found + used, run_blocks - used
                is_inside = used < child.num_blocks
                node = child
            if run_blocks or is_inside:
                break
        num_copied = 0
        if self._reuse is not None and self._reuse.is_partial:
            num_copied = copied_tokens(live, node, found, self.block_size, is_inside=is_inside)
        return PrefixHit(found, num_free, path, num_copied)

    def match_len(self, live: LiveRequest) -> int:
        """Returns the tokens that a look-up would hit, and changes nothing."""
        hit = self.lookup(live)
        return hit.num_blocks * self.block_size + hit.num_copied_tokens

    def admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Gives the request the blocks of `hit`, counts the look-up, and takes what else it computes."""
        node: PrefixNode | None = None
        for found, used in hit.path:
            node = found if used == found.num_blocks else self._split(found, used)
            if found.segment is not None:
                self._queue.withdraw(found.segment, used)
                if node is found:
                    self._forget_place(found)
            node.num_holders += 1
            node.level = self._prompt_level
        live.cached_node = node
        live.num_cached_blocks = hit.num_blocks
        if not live.num_preemptions:
            self._ledger.admitted(live, hit.num_blocks, hit.num_copied_tokens)
        self.take(num_blocks_for(num_tokens, self.block_size) - hit.num_blocks)
        if self._reuse is None or self._reuse.at_once:
            self.computed(live, num_tokens)

    def take(self, num_blocks: int) -> None:
        """Takes free blocks, evicting the least recently released content."""
        self._queue.take(num_blocks)

    def computed(self, live: LiveRequest, num_tokens: int) -> None:
        """Caches the full blocks of the first `num_tokens` tokens, so that others can hit them at once."""
        if live.request.content is not None:
            self._insert(live, num_tokens // self.block_size)

    def release(self, live: LiveRequest, *, is_finished: bool) -> None:
        """Frees the request's blocks, its tail first; full blocks stay cached until they are evicted."""
        # SIMPLIFIED: of a decode preempted with a step in flight, vLLM does not cache a block that this step
        # filled; effect: such a request may hit one block more when it resumes.
        # SIMPLIFIED: an answer's blocks are cached here, not as they fill; effect: none, unless a prompt
        # continues an answer that is still being written.
        num_full = live.num_computed // self.block_size
        if live.request.content is not None or not is_finished:
            self._insert(live, num_full)
        held = num_blocks_for(live.num_computed, self.block_size)
        queue = self._queue
        is_prompt = held <= num_blocks_for(live.prompt_tokens, self.block_size)
        level = self._prompt_level if is_prompt else self._output_level
        queue.push(held - live.num_cached_blocks, None, level)
        node = live.cached_node
        while node is not None and node.parent is not None:
            node.num_holders -= 1
            if node.num_holders == 0:
                node.segment = queue.push(node.num_blocks, node, node.level)
            elif node.num_holders < node.num_copies:
                node.num_copies -= 1
                queue.push(node.num_blocks, None, node.level)
            node = node.parent
        live.cached_node, live.num_cached_blocks = None, 0

    def check(self, holders: Iterable[tuple[LiveRequest, int]]) -> None:
        """Raises: InvariantError unless held and free blocks add up to all blocks."""
        if self._queue.total() != self._queue.num_blocks:
            raise InvariantError(f"free queue holds {self._queue.total()} blocks, counted {self.num_free}")
        own, shared = 0, set[PrefixNode]()
        for live, num_computed in holders:
            own += num_blocks_for(num_computed, self.block_size)
            own -= live.num_cached_blocks
            node = live.cached_node
            while node is not None:
                shared.add(node)
                node = node.parent
        held = own + sum(node.num_blocks * node.num_copies for node in shared)
        if held + self.num_free != self.num_blocks:
            raise InvariantError(f"held {held} + free {self.num_free} != blocks {self.num_blocks}")

    def _insert(self, live: LiveRequest, num_full: int) -> None:
        """Caches the request's blocks from those already cached up to `num_full`."""
        start = live.num_cached_blocks
        if num_full <= start:
            return
        node = live.cached_node or self._root
        position, ledger, prompt_blocks = 0, self._ledger, num_blocks_for(live.prompt_tokens, self.block_size)
        for key, run_blocks in runs_of(live, self.block_size):
            begin, end = position, position + run_blocks
            position = end
            if end <= start:
                continue
            if end > num_full:
                end = num_full
            ledger.cached(key, end - begin)
            level = self._prompt_level if begin < prompt_blocks else self._output_level
            node = self._append(node, key, end - (begin if begin > start else start), level)
            if position >= num_full:
                break
        live.cached_node = node
        live.num_cached_blocks = num_full

    def _append(self, node: PrefixNode, key: object, num_blocks: int, level: int) -> PrefixNode:
        """Adds `num_blocks` blocks below `node` and returns the deepest node that holds them."""
        while num_blocks:
            child = node.children.get(key)
            if child is None:
                if node.key == key and node.num_holders == 1 and not node.children:
                    node.num_blocks += num_blocks
                    return node
                child = PrefixNode(key, num_blocks, node, level)
                child.num_holders = 1
                node.children[key] = child
                if self._reuse is not None:
                    count_start(node, key, 1)
                return child
            node = self._adopt(child, min(child.num_blocks, num_blocks))
            num_blocks -= node.num_blocks
        return node

    def _adopt(self, found: PrefixNode, num_blocks: int) -> PrefixNode:
        """Joins content that was cached already to the path of a request that computed it once more.

        vLLM keeps both copies. Of an unreferenced one the two change places: the old copy stays in the
        queue without content, which is the same as long as either copy can be hit.
        """
        node = found if num_blocks == found.num_blocks else self._split(found, num_blocks)
        if found.segment is None:
            # SIMPLIFIED: copies are not told apart, one goes when fewer requests than copies are left;
            # effect: none, unless a request that shares the first copy outlives the one that made it.
            node.num_copies += 1
        elif node is found:
            self._forget_place(found)
        node.num_holders += 1
        return node

    @staticmethod
    def _forget_place(node: PrefixNode) -> None:
        if node.segment is not None:
            node.segment.node = None
            node.segment = None

    def _split(self, node: PrefixNode, num_blocks: int) -> PrefixNode:
        """Cuts `node` after `num_blocks` and returns the new front part; the back keeps its identity.

        The holders of the node hold both parts. The place in the free queue stays the back's; the caller
        says what becomes of the front's blocks there.
        """
        parent = node.parent
        assert parent is not None, "the root is never split"
        front = PrefixNode(node.key, num_blocks, parent, node.level)
        front.num_holders, front.num_copies = node.num_holders, node.num_copies
        front.children[node.key] = node
        parent.children[node.key] = front
        node.parent = front
        node.num_blocks -= num_blocks
        return front

    def _evicted(self, node: PrefixNode, num_blocks: int) -> None:
        if self.on_evict is not None:
            self.on_evict(node, num_blocks)
        node.num_blocks -= num_blocks
        # What followed the evicted blocks can't be reached by a chain of hashes any more.
        if node.children:
            node.children, node.starts = {}, None
        if node.num_blocks == 0:
            node.segment = None
            parent = node.parent
            if parent is not None and parent.children.get(node.key) is node:
                del parent.children[node.key]
                if self._reuse is not None:
                    count_start(parent, node.key, -1)
