"""SGLang's radix cache once more, page by page.

Source: SGLang python/sglang/srt/mem_cache/radix_cache.py and evict_policy.py (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .cache_tokens import Page, Token, pages_of


@dataclass(eq=False)
class RadixEdge:
    """A node of SGLang's tree: the pages on the edge to it."""

    pages: list[Page]
    parent: RadixEdge | None
    accessed_at: int
    created_at: int
    priority: int = 0
    hits: int = 0
    locks: int = 0
    children: dict[Page, RadixEdge] = field(default_factory=dict)


class LiteralRadixCache:
    """SGLang's radix cache over a pool of pages."""

    def __init__(self, num_blocks: int, size: int, policy: str) -> None:
        self.size, self.policy = size, policy
        self.unused = num_blocks
        self.now = 0
        self.root = RadixEdge([], None, 0, 0)
        self.last: dict[Hashable, RadixEdge] = {}
        self.protected: dict[Hashable, int] = {}
        self.held: dict[Hashable, int] = {}

    @property
    def num_free(self) -> int:
        return self.unused + sum(len(edge.pages) for edge in self._edges() if not edge.locks)

    def match(self, tokens: list[Token]) -> int:
        return self._match(pages_of(tokens, self.size))[0]

    def peek(self, tokens: list[Token]) -> int:
        """What `match` would return, without touching anything."""
        pages, found, edge = pages_of(tokens, self.size), 0, self.root
        while pages and pages[0] in edge.children:
            edge = edge.children[pages[0]]
            shared = _common(edge.pages, pages)
            found, pages = found + shared, pages[shared:]
            if shared < len(edge.pages):
                break
        return found

    def admit(self, name: Hashable, tokens: list[Token], num_hit: int, num_tokens: int) -> None:
        _, edge = self._match(pages_of(tokens, self.size)[:num_hit])
        self._lock(edge, 1)
        self.last[name], self.protected[name], self.held[name] = edge, num_hit, num_hit
        self.take(name, -(-num_tokens // self.size) - num_hit)

    def take(self, name: Hashable, num_blocks: int) -> None:
        lacking = num_blocks - self.unused
        while lacking > 0:
            leaf = min(self._leaves(), key=self._rank)
            assert leaf.parent is not None
            del leaf.parent.children[leaf.pages[0]]
            lacking -= len(leaf.pages)
            self.unused += len(leaf.pages)
        self.unused -= num_blocks
        self.held[name] += num_blocks

    def computed(self, name: Hashable, tokens: list[Token], *, is_whole: bool, priority: int) -> None:
        """A chunk's end: what is computed enters the tree, and the request goes on with the tree's pages."""
        pages = pages_of(tokens, self.size)
        if len(pages) > self.protected[name]:
            found = self._insert(pages, priority, counts=is_whole)
            self._drop_doubles(name, found)
            edge = self._end(pages)
            self._lock(edge, 1)
            self._lock(self.last[name], -1)
            self.last[name], self.protected[name] = edge, len(pages)

    def filled(self, name: Hashable, tokens: list[Token]) -> None:
        """Nothing: answers enter when they are complete."""

    def release(self, name: Hashable, tokens: list[Token], *, is_finished: bool, priority: int) -> None:
        pages = pages_of(tokens, self.size)
        kept = self.protected.pop(name)
        self.protected[name] = kept
        if is_finished and len(pages) > kept:
            found = self._insert(pages, priority, counts=True)
            self._drop_doubles(name, found)
            kept = len(pages)
        self.unused += self.held.pop(name) - kept
        self._lock(self.last.pop(name), -1)

    def _drop_doubles(self, name: Hashable, found: int) -> None:
        doubles = found - self.protected[name]
        self.unused += doubles

    def _match(self, pages: list[Page]) -> tuple[int, RadixEdge]:
        self.now = now = self.now + 1
        found, edge = 0, self.root
        while pages and pages[0] in edge.children:
            child = edge.children[pages[0]]
            child.accessed_at = now
            shared = _common(child.pages, pages)
            found, pages = found + shared, pages[shared:]
            if shared < len(child.pages):
                return found, self._split(child, shared)
            edge = child
        return found, edge

    def _insert(self, pages: list[Page], priority: int, *, counts: bool) -> int:
        self.now = now = self.now + 1
        found, edge = 0, self.root
        while pages and pages[0] in edge.children:
            edge = edge.children[pages[0]]
            edge.accessed_at = now
            shared = _common(edge.pages, pages)
            found, pages = found + shared, pages[shared:]
            if shared < len(edge.pages):
                edge = self._split(edge, shared)
            edge.priority = max(edge.priority, priority)
            edge.hits += counts
        if pages:
            self.now += 1
            edge.children[pages[0]] = RadixEdge(pages, edge, self.now, self.now, priority, int(counts))
        return found

    def _split(self, child: RadixEdge, num_pages: int) -> RadixEdge:
        assert child.parent is not None
        self.now += 1
        front = RadixEdge(child.pages[:num_pages], child.parent, self.now, self.now, child.priority)
        front.hits, front.locks = child.hits, child.locks
        child.parent.children[front.pages[0]] = front
        child.pages, child.parent = child.pages[num_pages:], front
        front.children[child.pages[0]] = child
        return front

    def _end(self, pages: list[Page]) -> RadixEdge:
        edge = self.root
        while pages:
            edge = edge.children[pages[0]]
            assert pages[: len(edge.pages)] == edge.pages
            pages = pages[len(edge.pages) :]
        return edge

    def _lock(self, edge: RadixEdge | None, change: int) -> None:
        while edge is not None and edge is not self.root:
            edge.locks += change
            edge = edge.parent

    def _edges(self) -> list[RadixEdge]:
        edges = [self.root]
        for edge in edges:
            edges += edge.children.values()
        return edges[1:]

    def _leaves(self) -> list[RadixEdge]:
        return [edge for edge in self._edges() if not edge.children and not edge.locks]

    def _rank(self, edge: RadixEdge) -> tuple[int, int]:
        return {
            "lru": (0, edge.accessed_at),
            "lfu": (edge.hits, edge.accessed_at),
            "slru": (int(edge.hits >= 2), edge.accessed_at),
            "fifo": (0, edge.created_at),
            "mru": (0, -edge.accessed_at),
            "filo": (0, -edge.created_at),
            "priority": (edge.priority, edge.accessed_at),
        }[self.policy]


def _common(one: list[Page], other: list[Page]) -> int:
    pairs = list(zip(one, other, strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
