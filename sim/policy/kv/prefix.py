"""The prefix cache of vLLM V1: chained block hashes, least recently released blocks evicted first.

Chains of full blocks form a tree whose nodes are runs of blocks that live and die together. A request
holds the path from the root to its deepest node. As in vLLM, blocks count as cached as soon as the step
that computes them is scheduled, at least one token of a prompt is always computed, and of a released chain
the tail is evicted first.

Source: vLLM v1 kv_cache_manager.py and block_pool.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable

from ....errors import InvariantError
from ...request import ContentRun, output_content_id
from ..live_request import LiveRequest
from .blocks import NO_HIT, PrefixHit, PrefixStats, num_blocks_for
from .free_queue import FreeQueue, Segment

BlockRuns = tuple[tuple[object, int], ...]


def block_runs(content: Iterable[ContentRun], block_size: int) -> BlockRuns:
    """Returns the full blocks of `content` as (key, number of blocks) runs.

    Blocks inside one content run share its id as key; a block across several runs is a run of its own,
    keyed by what it holds. The tokens after the last full block are left out.
    """
    runs: list[tuple[object, int]] = []
    across: tuple[tuple[int, int], ...] = ()
    filled = 0
    for content_id, num_tokens in content:
        if filled:
            used = min(num_tokens, block_size - filled)
            across += ((content_id, used),)
            filled, num_tokens = filled + used, num_tokens - used
            if filled < block_size:
                continue
            runs.append((across, 1))
            across, filled = (), 0
        full, rest = divmod(num_tokens, block_size)
        if full:
            runs.append((content_id, full))
        if rest:
            across, filled = ((content_id, rest),), rest
    return tuple(runs)


class PrefixNode:
    """A run of cached blocks after its parent's.

    num_holders: requests whose path leads through it. num_copies: times that the GPU holds its content,
    more than one where requests computed the same at the same time. segment: its place in the free queue,
    if nobody holds it.
    """

    __slots__ = ("children", "key", "num_blocks", "num_copies", "num_holders", "parent", "segment")

    def __init__(self, key: object, num_blocks: int, parent: PrefixNode | None) -> None:
        self.key = key
        self.num_blocks = num_blocks
        self.parent = parent
        self.children: dict[object, PrefixNode] = {}
        self.num_holders = 0
        self.num_copies = 1
        self.segment: Segment | None = None


class PrefixKvCache:
    """Blocks of one replica with prefix caching."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.stats = PrefixStats()
        self._root = PrefixNode(None, 0, None)
        self._queue = FreeQueue(num_blocks, self._evicted)
        self._ever_cached: set[object] = set()

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
        for key, run_blocks in self._runs_of(live):
            while run_blocks and found < limit:
                child = node.children.get(key)
                if child is None:
                    break
                used = min(child.num_blocks, run_blocks, limit - found)
                path.append((child, used))
                num_free += used if child.num_holders == 0 else 0
                found, run_blocks = found + used, run_blocks - used
                if used < child.num_blocks:
                    return PrefixHit(found, num_free, path)
                node = child
            if run_blocks:
                break
        return PrefixHit(found, num_free, path)

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
        live.cached_node = node
        live.num_cached_blocks = hit.num_blocks
        if not live.num_preemptions:
            self._count(live, hit.num_blocks)
        self.take(num_blocks_for(num_tokens, self.block_size) - hit.num_blocks)
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
        self._queue.push(held - live.num_cached_blocks, None)
        node = live.cached_node
        while node is not None and node.parent is not None:
            node.num_holders -= 1
            if node.num_holders == 0:
                node.segment = self._queue.push(node.num_blocks, node)
            elif node.num_holders < node.num_copies:
                node.num_copies -= 1
                self._queue.push(node.num_blocks, None)
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

    def _runs_of(self, live: LiveRequest) -> BlockRuns:
        if live.runs is None:
            request = live.request
            answer = ContentRun(output_content_id(request.index), live.num_output_tokens)
            prompt = request.content
            if prompt is None:
                # Nothing but the request itself can hit its blocks: one run for prompt and answer.
                whole = request.prompt_tokens + live.num_output_tokens
                prompt, answer = (), ContentRun(answer.content_id, whole)
            live.runs = block_runs((*prompt, answer), self.block_size)
        return live.runs

    def _insert(self, live: LiveRequest, num_full: int) -> None:
        """Caches the request's blocks from those already cached up to `num_full`."""
        start = live.num_cached_blocks
        if num_full <= start:
            return
        node = live.cached_node or self._root
        position = 0
        for key, run_blocks in self._runs_of(live):
            begin, end = max(position, start), min(position + run_blocks, num_full)
            position += run_blocks
            if begin < end:
                self._ever_cached.add(key)
                node = self._append(node, key, end - begin, live)
            if position >= num_full:
                break
        live.cached_node = node
        live.num_cached_blocks = num_full

    def _append(self, node: PrefixNode, key: object, num_blocks: int, live: LiveRequest) -> PrefixNode:
        """Adds `num_blocks` blocks below `node` and returns the deepest node that holds them."""
        while num_blocks:
            child = node.children.get(key)
            if child is None:
                if node.key == key and node.num_holders == 1 and not node.children:
                    node.num_blocks += num_blocks
                    return node
                child = PrefixNode(key, num_blocks, node)
                child.num_holders = 1
                node.children[key] = child
                return child
            node = self._adopt(child, min(child.num_blocks, num_blocks), live)
            num_blocks -= node.num_blocks
        return node

    def _adopt(self, found: PrefixNode, num_blocks: int, live: LiveRequest) -> PrefixNode:
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
        front = PrefixNode(node.key, num_blocks, parent)
        front.num_holders, front.num_copies = node.num_holders, node.num_copies
        front.children[node.key] = node
        parent.children[node.key] = front
        node.parent = front
        node.num_blocks -= num_blocks
        return front

    def _evicted(self, node: PrefixNode, num_blocks: int) -> None:
        node.num_blocks -= num_blocks
        # What followed the evicted blocks can't be reached by a chain of hashes any more.
        node.children = {}
        if node.num_blocks == 0:
            node.segment = None
            parent = node.parent
            if parent is not None and parent.children.get(node.key) is node:
                del parent.children[node.key]

    def _count(self, live: LiveRequest, num_hit_blocks: int) -> None:
        size, prompt = self.block_size, live.prompt_tokens
        stats = self.stats
        stats.query_tokens += prompt
        stats.hit_tokens += num_hit_blocks * size
        missed = prompt // size - num_hit_blocks
        stats.misses["below_block"] += prompt % size
        if missed and live.request.content is None:
            stats.misses["no_shared_prefix"] += missed * size
        elif missed:
            self._count_misses(live, num_hit_blocks, prompt // size)

    def _count_misses(self, live: LiveRequest, num_hit_blocks: int, num_full: int) -> None:
        misses, position = self.stats.misses, 0
        for key, run_blocks in self._runs_of(live):
            missed = min(position + run_blocks, num_full) - max(position, num_hit_blocks)
            position += run_blocks
            if missed > 0:
                reason = "evicted" if key in self._ever_cached else "no_shared_prefix"
                misses[reason] += missed * self.block_size
            if position >= num_full:
                break
