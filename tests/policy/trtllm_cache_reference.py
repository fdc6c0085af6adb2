"""TensorRT-LLM's block manager once more, block by block.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp and evictionPolicy.cpp (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .cache_tokens import Page, Token, pages_of


@dataclass(eq=False)
class TrtllmBlock:
    """One block of TensorRT-LLM: its tokens while it is in the tree, its place there, its priority."""

    priority: int
    page: Page | None = None
    parent: TrtllmBlock | None = None
    children: dict[Page, TrtllmBlock] = field(default_factory=dict)
    refs: int = 0


class LiteralTrtllmCache:
    """TensorRT-LLM's block manager without partial reuse; a queue of free blocks per priority."""

    def __init__(self, num_blocks: int, size: int, prompt_priority: int, output_priority: int) -> None:
        self.size = size
        self.prompt_priority, self.output_priority = prompt_priority, output_priority
        self.root = TrtllmBlock(0)
        self.free: dict[int, list[TrtllmBlock]] = {priority: [] for priority in range(101)}
        self.free[35] = [TrtllmBlock(35) for _ in range(num_blocks)]
        self.blocks: dict[Hashable, list[TrtllmBlock]] = {}
        self.prompt_blocks: dict[Hashable, int] = {}

    @property
    def num_free(self) -> int:
        return sum(len(queue) for queue in self.free.values())

    @property
    def unused(self) -> int:
        return sum(block.page is None for queue in self.free.values() for block in queue)

    def match(self, tokens: list[Token]) -> int:
        return len(self._matched(tokens))

    def peek(self, tokens: list[Token]) -> int:
        return self.match(tokens)

    def admit(self, name: Hashable, tokens: list[Token], num_hit: int, num_tokens: int) -> None:
        self.blocks[name] = self._matched(tokens)[:num_hit]
        self.prompt_blocks[name] = -(-len(tokens) // self.size)
        for block in self.blocks[name]:
            if not block.refs:
                self.free[block.priority].remove(block)
            block.refs += 1
            block.priority = self.prompt_priority
        self.take(name, -(-num_tokens // self.size) - num_hit)

    def take(self, name: Hashable, num_blocks: int) -> None:
        for _ in range(num_blocks):
            block = next(queue for _, queue in sorted(self.free.items()) if queue).pop(0)
            self._leave_tree(block)
            is_prompt = len(self.blocks[name]) < self.prompt_blocks[name]
            block.priority = self.prompt_priority if is_prompt else self.output_priority
            block.refs = 1
            self.blocks[name].append(block)

    def computed(self, name: Hashable, tokens: list[Token], *, is_whole: bool, priority: int) -> None:
        block = self.root
        for page, own in zip(pages_of(tokens, self.size), self.blocks[name], strict=False):
            if page not in block.children:
                own.page, own.parent, block.children[page] = page, block, own
            block = block.children[page]

    def filled(self, name: Hashable, tokens: list[Token]) -> None:
        """Nothing: nobody else can ask for an answer that is being written."""

    def release(self, name: Hashable, tokens: list[Token], *, is_finished: bool, priority: int) -> None:
        self.computed(name, tokens, is_whole=True, priority=priority)
        for block in reversed(self.blocks.pop(name)):
            block.refs -= 1
            if not block.refs:
                self.free[block.priority].append(block)

    def _matched(self, tokens: list[Token]) -> list[TrtllmBlock]:
        block, found = self.root, []
        for page in pages_of(tokens, self.size):
            if page not in block.children:
                break
            block = block.children[page]
            found.append(block)
        return found

    def _leave_tree(self, block: TrtllmBlock) -> None:
        for child in list(block.children.values()):
            self._leave_tree(child)
        if block.parent is not None and block.page is not None:
            del block.parent.children[block.page]
        block.page = block.parent = None
