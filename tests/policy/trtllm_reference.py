"""TensorRT-LLM's two schedulers, written down literally: one list, walked from its head in every step.

No reuse, one step in flight. Slow and plain, to compare the counting scheduler with.
Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp, microBatchScheduler.cpp and
kvCacheManager.cpp (getNeededBlocksOneStep, getRemainingBlocksToCompletion).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Active:
    """A request of the list: `asked` tokens came with it, `prompt` are to be computed before it generates.

    made: tokens so far. computed: tokens in the cache, for which it holds `num_blocks`.
    """

    index: int
    asked: int
    num_outputs: int
    prompt: int = 0
    made: int = 0
    computed: int = 0
    num_blocks: int = 0

    @property
    def generates(self) -> bool:
        return self.made > 0 and self.computed >= self.prompt

    @property
    def has_begun(self) -> bool:
        return self.computed > 0


@dataclass
class Decided:
    """One step: (request, tokens, tokens before them), who generates, who was paused, who ends."""

    contexts: list[tuple[Active, int, int]] = field(default_factory=list)
    generating: list[Active] = field(default_factory=list)
    paused: list[Active] = field(default_factory=list)
    ended: list[Active] = field(default_factory=list)


@dataclass
class LiteralTrtllm:
    """The active requests and the blocks that they hold."""

    policy: str
    num_blocks: int
    block_size: int
    max_batch_size: int
    max_num_tokens: int
    is_chunked: bool
    is_fair: bool
    active: list[Active] = field(default_factory=list)

    def blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def step(self) -> Decided:
        """Decides a step, computes it, and removes who has ended."""
        decided = Decided()
        fitting = self._max_utilization(decided) if self.policy == "MAX_UTILIZATION" else self._no_evict()
        self._micro_batch(fitting, decided)
        for request, num_tokens, _ in decided.contexts:
            if not request.computed:
                request.num_blocks = self.blocks(request.prompt)
            request.computed += num_tokens
            if request.computed == request.prompt:
                self._token(request, decided)
        for request in decided.generating:
            request.computed += 1
            request.num_blocks = max(request.num_blocks, self.blocks(request.computed))
            self._token(request, decided)
        assert sum(request.num_blocks for request in self.active) <= self.num_blocks
        self.active = [request for request in self.active if request not in decided.ended]
        return decided

    def _token(self, request: Active, decided: Decided) -> None:
        request.made += 1
        if request.made == request.num_outputs:
            decided.ended.append(request)

    def _no_evict(self) -> list[Active]:
        free = self.num_blocks - sum(request.num_blocks for request in self.active)

        def to_come(request: Active) -> int:
            return self.blocks(request.asked + request.num_outputs) - request.num_blocks

        scheduled = [request for request in self.active if request.generates]
        free -= sum(map(to_come, scheduled))
        if self.policy == "STATIC_BATCH" and scheduled:
            return scheduled
        for request in self.active:
            if request.generates:
                continue
            if len(scheduled) >= self.max_batch_size or to_come(request) > free:
                break
            free -= to_come(request)
            scheduled.append(request)
        return scheduled

    def _max_utilization(self, decided: Decided) -> list[Active]:
        free = self.num_blocks - sum(request.num_blocks for request in self.active)
        scheduled: list[Active] = []
        place, end, needed = 0, len(self.active), 0
        while place < end:
            request = self.active[place]
            needs = self._next_step(request)
            if len(scheduled) < self.max_batch_size and needed + needs <= free:
                scheduled.append(request)
                needed += needs
                place += 1
                continue
            begun = [at for at in range(place, end) if self.active[at].has_begun]
            if not begun:
                break
            end = begun[-1]
            free += self.active[end].num_blocks
            decided.paused.append(self.active[end])
        for request in decided.paused:
            request.prompt = request.asked + request.made
            request.computed = request.num_blocks = 0
        return scheduled

    def add(self, index: int, prompt: int, num_outputs: int) -> None:
        """Puts a request at the end of the list."""
        self.active.append(Active(index, prompt, num_outputs, prompt))

    def _next_step(self, request: Active) -> int:
        if request.generates:
            return self.blocks(request.computed + 1) - self.blocks(request.computed)
        return 0 if request.computed else self.blocks(request.prompt)

    def _micro_batch(self, fitting: list[Active], decided: Decided) -> None:
        num_tokens, contexts = 0, []
        for request in fitting:
            if request.generates:
                decided.generating.append(request)
                num_tokens += 1
            elif self.is_chunked:
                contexts.append(request)
            else:
                if num_tokens + request.prompt > self.max_num_tokens:
                    break
                decided.contexts.append((request, request.prompt, 0))
                num_tokens += request.prompt
        if self.is_chunked:
            self._chunk(contexts, self.max_num_tokens - num_tokens, decided)

    def _chunk(self, contexts: list[Active], capacity: int, decided: Decided) -> None:
        lacking = [request.prompt - request.computed for request in contexts]
        sizes = lacking
        if sum(lacking) > capacity:
            sizes = self._fair(lacking, capacity) if self.is_fair else self._first_come(lacking, capacity)
        for request, size in zip(contexts, sizes, strict=True):
            if size:
                decided.contexts.append((request, size, request.computed))

    def _first_come(self, lacking: list[int], capacity: int) -> list[int]:
        sizes = []
        for wanted in lacking:
            size = min(capacity, wanted)
            if size != wanted:
                size = size // self.block_size * self.block_size
            sizes.append(size)
            capacity -= size
        return sizes

    def _fair(self, lacking: list[int], capacity: int) -> list[int]:
        sizes, total, grown = [0] * len(lacking), 0, 1
        while total < capacity and grown:
            grown = 0
            for at, wanted in enumerate(lacking):
                more = min(sizes[at] + self.block_size, wanted) - sizes[at]
                if total + more <= capacity:
                    sizes[at] += more
                    total += more
                    grown += more
        return sizes
