"""KsanaLLM's prefix cache once more, block by block.

Source: KsanaLLM src/ksana_llm/cache_manager/prefix_cache_manager.cpp at c451219c (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .cache_tokens import Page, Token, pages_of


@dataclass(eq=False)
class TreeBlock:
    """One block of KsanaLLM: its tokens once it is full, its place in the tree, who refers to it."""

    tokens: Page | None = None
    parent: TreeBlock | None = None
    children: dict[Page, TreeBlock] = field(default_factory=dict)
    active: set[Hashable] = field(default_factory=set)
    inactive: set[Hashable] = field(default_factory=set)
    is_on_device: bool = True


class LiteralKsanaCache:
    """KsanaLLM's PrefixCacheManager, with an endless host."""

    def __init__(self, num_blocks: int, size: int) -> None:
        self.size = size
        self.unused = num_blocks
        self.root = TreeBlock()
        self.timed: list[TreeBlock] = []  # in the order of insertion
        self.blocks: dict[Hashable, list[TreeBlock]] = {}
        self.leaving: dict[Hashable, int] = {}

    @property
    def num_free(self) -> int:
        return self.unused + sum(not block.active and not block.inactive for block in self.timed)

    @property
    def num_on_host(self) -> int:
        return len({block for row in self.blocks.values() for block in row if not block.is_on_device})

    def match(self, tokens: list[Token]) -> int:
        return len(self._matched(tokens))

    def peek(self, tokens: list[Token]) -> int:
        return self.match(tokens)

    def admit(self, name: Hashable, tokens: list[Token], num_hit: int, num_tokens: int) -> None:
        self.blocks[name] = self._matched(tokens)[:num_hit]
        for block in self.blocks[name]:
            block.active.add(name)
        self.take(name, -(-num_tokens // self.size) - num_hit)

    def take(self, name: Hashable, num_blocks: int) -> None:
        self._make_room(num_blocks)
        self.unused -= num_blocks
        self.blocks[name] += [TreeBlock() for _ in range(num_blocks)]

    def computed(self, name: Hashable, tokens: list[Token], *, is_whole: bool, priority: int) -> None:
        self.filled(name, tokens)

    def filled(self, name: Hashable, tokens: list[Token]) -> None:
        """Full blocks enter the tree, or are merged with the equal one that is there."""
        row, parent = self.blocks[name], self.root
        for number, page in enumerate(pages_of(tokens, self.size)):
            block = row[number]
            if block.tokens is None:
                if page in parent.children:
                    row[number] = block = parent.children[page]
                    self.unused += 1
                else:
                    block.tokens = page
                    self._attach(block, parent)
                block.active.add(name)
            parent = block

    def release(self, name: Hashable, tokens: list[Token], *, is_finished: bool, priority: int) -> None:
        self.filled(name, tokens)
        for block in self.blocks.pop(name):
            block.active.discard(name)
            self.unused += block.tokens is None

    def swap_out(self, name: Hashable) -> int:
        """Tail first; returns how many blocks leave the device."""
        moved = []
        for block in reversed(self.blocks[name]):
            behind = [child for child in block.children.values() if child not in moved]
            if len(block.active) > 1 or any(child.inactive for child in behind):
                continue  # the second reason is where the simulator departs from KsanaLLM
            moved.append(block)
        for block in self.blocks[name]:
            if block.tokens is not None:
                block.active.discard(name)
                block.inactive.add(name)
        for block in moved:
            block.is_on_device = False
            if block.tokens is not None:
                self._detach(block)
                self._free_below(block)
        self.leaving[name] = len(moved)
        return len(moved)

    def swapped_out(self, name: Hashable) -> None:
        self.unused += self.leaving.pop(name)

    def num_away(self, name: Hashable) -> int:
        return sum(not block.is_on_device for block in self.blocks[name])

    def swap_in(self, name: Hashable) -> int:
        """At once: copies, then merges from head to tail; returns how many blocks were copied."""
        away = [block for block in self.blocks[name] if not block.is_on_device]
        self._make_room(len(away))
        self.unused -= len(away)
        for block in away:
            block.is_on_device = True
        parent = self.root
        for number in range(len(self.blocks[name])):
            block = self.blocks[name][number]
            if block.tokens is None:
                break
            if block.parent is None:
                there = parent.children.get(block.tokens)
                if there is None:
                    self._attach(block, parent)
                else:
                    self._merge(block, there)
                    block = there
            parent = block
        for block in self.blocks[name]:
            if block.tokens is not None:
                block.inactive.discard(name)
                block.active.add(name)
        return len(away)

    def drop_swapped(self, name: Hashable) -> None:
        for block in self.blocks.pop(name):
            block.inactive.discard(name)

    def _merge(self, block: TreeBlock, there: TreeBlock) -> None:
        there.inactive |= block.inactive
        for row in self.blocks.values():
            row[:] = [there if other is block else other for other in row]
        self.unused += 1

    def _matched(self, tokens: list[Token]) -> list[TreeBlock]:
        block, found = self.root, []
        for page in pages_of(tokens, self.size):
            if page not in block.children:
                break
            block = block.children[page]
            found.append(block)
        return found

    def _make_room(self, num_blocks: int) -> None:
        """Newest first, each with all that is below it."""
        for block in reversed(self.timed.copy()):
            if self.unused >= num_blocks:
                return
            if block in self.timed and not block.active and not block.inactive:
                self._free_below(block)
                self._detach(block)
                self.unused += 1

    def _free_below(self, block: TreeBlock) -> None:
        for child in list(block.children.values()):
            assert not child.active and not child.inactive
            self._free_below(child)
            self._detach(child)
            self.unused += 1

    def _attach(self, block: TreeBlock, parent: TreeBlock) -> None:
        assert block.tokens is not None
        block.parent, parent.children[block.tokens] = parent, block
        self.timed.append(block)

    def _detach(self, block: TreeBlock) -> None:
        assert block.parent is not None and block.tokens is not None
        del block.parent.children[block.tokens]
        block.parent = None
        self.timed.remove(block)
