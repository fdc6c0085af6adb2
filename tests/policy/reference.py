"""vLLM V1's scheduler and block pool once more: request by request, token by token, block by block.

Slow and literal on purpose. It is written from vLLM's behaviour alone and shares nothing with
`simllm.sim.policy` but the names of the settings, so that the two can be held against each other.

Source: vLLM vllm/v1/core/sched/scheduler.py (commit 00024d31), sched/async_scheduler.py (014b2350),
kv_cache_manager.py (003df296), block_pool.py and single_type_kv_cache_manager.py (002f3491).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import Request, output_content_id

Token = tuple[object, int]


class Block:
    """One KV block; `hash` names a full block's content and all that comes before it."""

    def __init__(self) -> None:
        self.ref_count = 0
        self.hash: int | None = None


class BlockPool:
    """All usable blocks: the free ones in order of eviction, the cached ones by hash."""

    def __init__(self, num_blocks: int) -> None:
        self.free = deque(Block() for _ in range(num_blocks))
        self.cached: dict[int, list[Block]] = {}
        self._hashes: dict[tuple[int | None, tuple[Token, ...]], int] = {}

    def hash_of(self, parent: int | None, tokens: list[Token]) -> int:
        """Returns a number for this content after `parent`: a hash without collisions."""
        return self._hashes.setdefault((parent, tuple(tokens)), len(self._hashes))

    def new_block(self) -> Block:
        block = self.free.popleft()
        if block.hash is not None:
            self.cached[block.hash].remove(block)
            block.hash = None
        block.ref_count = 1
        return block

    def touch(self, block: Block) -> None:
        if block.ref_count == 0:
            self.free.remove(block)
        block.ref_count += 1

    def release(self, blocks: list[Block]) -> None:
        """Frees a request's blocks, its tail first."""
        for block in reversed(blocks):
            block.ref_count -= 1
            if block.ref_count == 0:
                self.free.append(block)


class Sequence:
    """A request on its way: its tokens, of which `num_computed` have KV in `blocks`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        runs = request.content or ((("own", request.index), request.prompt_tokens),)
        self.tokens: list[Token] = [(name, i) for name, size in runs for i in range(size)]
        self.num_prompt = len(self.tokens)
        self.num_computed = 0
        self.num_placeholders = 0  # sampled by steps whose output has not been processed
        self.blocks: list[Block] = []
        self.num_cached_blocks = 0
        self.num_cached_tokens: int | None = None
        self.num_preemptions = 0
        self.most_computed = 0
        self.num_recomputed = 0

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt


@dataclass
class ReferenceStep:
    """What one step holds: per request its new tokens, after how many computed ones."""

    scheduled: list[tuple[Sequence, int, int]] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    sampling: list[Sequence] = field(default_factory=list)
    num_preempted: int = 0


class ReferenceScheduler:
    """The waiting queue, the running list, and the pool."""

    def __init__(
        self, spec: VllmV1Spec, *, num_blocks: int, block_size: int, caches: bool, max_model_len: int
    ) -> None:
        self.spec, self.block_size, self.caches, self.max_model_len = spec, block_size, caches, max_model_len
        # vLLM counts its null block in.
        self.watermark_blocks = int(spec.watermark * (num_blocks + 1))
        self.pool = BlockPool(num_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, request: Request) -> None:
        self.waiting.append(Sequence(request))

    def schedule(self) -> ReferenceStep:
        step = ReferenceStep()
        budget = self._schedule_running(step)
        if not step.num_preempted:
            self._schedule_waiting(step, budget)
        for sequence, num_new, _ in step.scheduled:
            sequence.num_recomputed += max(0, min(sequence.most_computed - sequence.num_computed, num_new))
            sequence.num_computed += num_new
            sequence.most_computed = max(sequence.most_computed, sequence.num_computed)
            if sequence.num_computed >= len(sequence.tokens) + sequence.num_placeholders:
                step.sampling.append(sequence)
                sequence.num_placeholders += self.spec.async_scheduling
        return step

    def process_output(self, step: ReferenceStep) -> list[Sequence]:
        """Appends the sampled tokens; returns the sequences that are complete, and frees them."""
        finished = []
        for sequence in step.sampling:
            sequence.tokens.append((output_content_id(sequence.request.index), sequence.num_output))
            if self.spec.async_scheduling:
                sequence.num_placeholders -= 1
                if sequence in self.running:
                    self._cache(sequence, sequence.num_computed - sequence.num_placeholders)
            if self._has_ended(sequence):
                finished.append(sequence)
                self._free(sequence)
                for queue in (self.running, self.waiting):
                    if sequence in queue:
                        queue.remove(sequence)
        return finished

    def _has_ended(self, sequence: Sequence) -> bool:
        is_full = len(sequence.tokens) >= self.max_model_len
        return is_full or sequence.num_output == sequence.request.output_tokens

    def _schedule_running(self, step: ReferenceStep) -> int:
        budget, position = self.spec.max_num_batched_tokens, 0
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            num_new = min(self._lacking(sequence, 0), budget)
            if num_new == 0 or self._all_tokens_are_scheduled(sequence):
                position += 1
                continue
            while not self._allocate(sequence, num_new):
                victim = self.running.pop()
                self._preempt(victim)
                step.num_preempted += 1
                if victim is sequence:
                    return budget
            step.scheduled.append((sequence, num_new, sequence.num_computed))
            budget -= num_new
            position += 1
        return budget

    def _schedule_waiting(self, step: ReferenceStep, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.spec.max_num_seqs:
            sequence = self.waiting[0]
            hits = self._cached_prefix(sequence)
            num_hit = len(hits) * self.block_size
            num_new = self._lacking(sequence, num_hit)
            if not self.spec.enable_chunked_prefill and num_new > budget:
                return
            num_new = min(num_new, budget)
            if not self._allocate(sequence, num_new, hits, is_admission=True):
                return
            self.running.append(self.waiting.popleft())
            sequence.num_computed = num_hit
            if sequence.num_cached_tokens is None:
                sequence.num_cached_tokens = num_hit
            step.scheduled.append((sequence, num_new, num_hit))
            step.admitted.append(sequence)
            budget -= num_new

    def _lacking(self, sequence: Sequence, num_hit: int) -> int:
        computed = sequence.num_computed + num_hit
        num_new = len(sequence.tokens) + sequence.num_placeholders - computed
        if 0 < self.spec.long_prefill_token_threshold < num_new:
            num_new = self.spec.long_prefill_token_threshold
        return min(num_new, self.max_model_len - 1 - computed)

    @staticmethod
    def _all_tokens_are_scheduled(sequence: Sequence) -> bool:
        last = sequence.num_prompt + sequence.request.output_tokens
        placeholders = sequence.num_placeholders
        return placeholders > 0 and sequence.num_computed + 2 - placeholders >= last

    def _cached_prefix(self, sequence: Sequence) -> list[Block]:
        hits: list[Block] = []
        parent = None
        for number in range((len(sequence.tokens) - 1) // self.block_size if self.caches else 0):
            parent = self._hash(sequence, number, parent)
            if not self.pool.cached.get(parent):
                break
            hits.append(self.pool.cached[parent][0])
        return hits

    def _allocate(
        self, sequence: Sequence, num_new: int, hits: list[Block] | None = None, *, is_admission: bool = False
    ) -> bool:
        """Takes the hits and the blocks of `num_new` more tokens, or returns False and takes nothing."""
        hits = hits or []
        held = len(sequence.blocks) + len(hits)
        num_tokens = sequence.num_computed + len(hits) * self.block_size + num_new
        evictable = sum(block.ref_count == 0 for block in hits)
        watermark = self.watermark_blocks if is_admission and self.running else 0
        must_fit = [num_tokens]
        if is_admission and self.spec.scheduler_reserve_full_isl:
            must_fit.append(min(len(sequence.tokens), self.max_model_len))
        for tokens in must_fit:
            if -(-tokens // self.block_size) - held + evictable + watermark > len(self.pool.free):
                return False
        for block in hits:
            self.pool.touch(block)
        sequence.blocks += hits
        sequence.num_cached_blocks += len(hits)
        while len(sequence.blocks) * self.block_size < num_tokens:
            sequence.blocks.append(self.pool.new_block())
        self._cache(sequence, min(num_tokens, len(sequence.tokens)))
        return True

    def _cache(self, sequence: Sequence, num_tokens: int) -> None:
        if not self.caches:
            return
        for number in range(sequence.num_cached_blocks, num_tokens // self.block_size):
            parent = sequence.blocks[number - 1].hash if number else None
            block = sequence.blocks[number]
            block.hash = self._hash(sequence, number, parent)
            self.pool.cached.setdefault(block.hash, []).append(block)
            sequence.num_cached_blocks = number + 1

    def _hash(self, sequence: Sequence, number: int, parent: int | None) -> int:
        start = number * self.block_size
        return self.pool.hash_of(parent, sequence.tokens[start : start + self.block_size])

    def _preempt(self, victim: Sequence) -> None:
        # vLLM leaves the block out that was filled by a step still in flight; the counting cache does not
        # (SIMPLIFIED in kv/prefix.py).
        self._cache(victim, victim.num_computed)
        self._free(victim)
        victim.num_computed = 0
        victim.num_preemptions += 1
        self.waiting.appendleft(victim)

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks, sequence.num_cached_blocks = [], 0
