"""SGLang's scheduler: prompts first, in batches of their own; room for future outputs is estimated.

While a prompt can be admitted, a step computes prompts only and decodes wait. An admission leaves room for
a share of the tokens that running requests may still produce (`new_token_ratio`), which falls while all
goes well; when decodes run out of memory all the same, those with the fewest tokens are *retracted*: they
lose their KV, but for what the radix tree keeps, and queue again.

Source: SGLang python/sglang/srt/managers/{schedule_policy,scheduler,schedule_batch}.py and
scheduler_components/new_token_ratio_tracker.py (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..kv.blocks import KvCache
from ..live_request import LiveRequest
from .chunk_plan import Prefill
from .core import SchedulerCore
from .sglang_order import in_order
from .sglang_spec import SglangSpec

__all__ = ["NewTokenRatio", "SglangScheduler", "SglangSpec"]

# Longer answers are expected to be no longer than this. Source: SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION.
CLIP_MAX_NEW_TOKENS = 4096
# Source: SGLANG_RETRACT_DECODE_STEPS.
RETRACT_DECODE_STEPS = 20


class NewTokenRatio:
    """The share of outputs still to come that admissions leave room for.

    Source: SGLang environ.py: SGLANG_INIT_NEW_TOKEN_RATIO, SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR,
    SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS.
    """

    def __init__(self, conservativeness: float) -> None:
        self._init = min(0.7 * conservativeness, 1.0)
        self._min = min(0.14 * self._init, 1.0)
        self._decay = (self._init - self._min) / 600
        self.reset()

    @property
    def current(self) -> float:
        """The ratio now."""
        # Steps are counted, not subtracted one by one, so that many at once give the same number.
        return max(self._base - self._num_steps * self._decay, self._min)

    def decay(self, num_steps: int) -> None:
        """Lowers it after decode steps that found their memory."""
        self._num_steps += num_steps

    def estimate(self, running: Sequence[tuple[int, int]]) -> None:
        """Sets it after a retraction, from (tokens produced, tokens expected) of those who stay."""
        done = sum(produced for produced, _ in running) + RETRACT_DECODE_STEPS * len(running)
        self._base, self._num_steps = min(1.0, done / (sum(limit for _, limit in running) + 1)), 0

    def reset(self) -> None:
        """Begins anew, as an idle engine does."""
        self._base, self._num_steps = self._init, 0


@dataclass(slots=True)
class _Budget:
    """What a prefill batch may still take [tokens]: of memory, of input, and of its chunk."""

    memory: float
    input: int
    chunk: int | None

    @property
    def is_used_up(self) -> bool:
        return self.memory <= 0 or self.input <= 0 or (self.chunk is not None and self.chunk <= 0)

    def charge(self, num_tokens: int, *, reserve: int) -> None:
        self.memory -= num_tokens + reserve
        self.input -= num_tokens
        if self.chunk is not None:
            self.chunk -= num_tokens


class SglangScheduler(SchedulerCore):
    """SGLang's scheduler over any KV cache; its page is the cache's block."""

    def __init__(self, spec: SglangSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(
            kv=kv, max_model_len=max_model_len, block_bytes=block_bytes, max_new_tokens=spec.max_new_tokens
        )
        self._max_running = spec.max_running_requests
        self._chunk_size = spec.chunked_prefill_size if spec.chunked_prefill_size > 0 else None
        self._max_prefill_tokens = spec.max_prefill_tokens
        self._policy = spec.schedule_policy
        self._mixes = spec.enable_mixed_chunk
        self._ratio = NewTokenRatio(spec.schedule_conservativeness)
        self._num_changes = 0  # joins to the decodes, and leaves before the last token
        self._expected_then = (
            (-1, -1),
            0,
            0,
        )  # who decoded, in which step, and what they might still produce
        self._computing: list[Prefill] = []  # the prefill batch decided last: not in the tree before it ran

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        self._ratio.decay(num_steps)
        return super().advance(num_steps)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks; an idle engine forgets what it learnt of outputs."""
        super().finish(finished)
        if not self._running and not self._waiting:
            self._ratio.reset()

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        # One page of its own is kept for each request, and one token must always be left.
        longest = prompt_tokens + num_output_tokens + self.kv.block_size
        return "exceeds_kv_cache" if longest >= self.kv.num_blocks * self.kv.block_size else None

    def _limit(self, live: LiveRequest) -> int:
        # What the cache could never hold is cut off what clients ask for.
        room = (self.kv.num_blocks - 1) * self.kv.block_size - live.prompt_tokens - 1
        return max(live.num_output_tokens, min(super()._limit(live), room))

    def _requeue(self, victim: LiveRequest) -> None:
        self._waiting.append(victim)

    def _compose(self) -> bool:
        self._publish()
        if self._waiting or self._prefilling:
            self._fill_prefill_batch()
        if self._prefills and not (self._mixes and self._decodes.count):
            return False
        if self._decodes.count:
            self._fit_or_retract()
        return True

    def _publish(self) -> None:
        """Puts what the last prefill batch computed into the prefix cache."""
        for live, num_tokens, context in self._computing:
            if live in self._running:
                self.kv.computed(live, context + num_tokens)
        self._computing = []

    # -- prompts ---------------------------------------------------------------------------------------------

    def _fill_prefill_batch(self) -> None:
        mixed = self._decodes.count if self._mixes else 0
        chunk = None if self._chunk_size is None else self._chunk_size - mixed
        budget = _Budget(self._free_memory() - mixed, self._max_prefill_tokens - mixed, chunk)
        if self._prefilling:
            self._continue_chunked(self._prefilling[0], budget)
        if self._waiting and not budget.is_used_up and len(self._running) < self._max_running:
            self._waiting = deque(in_order(self._policy, self._waiting, self._cached_tokens))
            while self._waiting and len(self._running) < self._max_running:
                if not self._add(self._waiting[0], budget) or budget.is_used_up:
                    break
        # Room for more comes by itself, as the ratio falls; a slot does not.
        self._is_blocked = len(self._running) >= self._max_running
        self._computing = list(self._prefills)

    def _free_memory(self) -> float:
        """Returns the tokens that may be given away, those expected of running requests set aside."""
        kv, ratio = self.kv, self._ratio.current
        return kv.num_free * kv.block_size - self._expected_of_decodes() * ratio

    def _expected_of_decodes(self) -> int:
        """Returns the tokens that decodes may still produce; counts them anew only if others decode now.

        While the same requests decode, each step takes one token from each of them.
        """
        who = (self._num_changes, self._decodes.count)
        known_of, known_at, known = self._expected_then
        if who == known_of:
            return known - self._decodes.count * (self._tick - known_at)
        lefts = [self._left(live) for live in self._running if live.is_decoding]
        total = sum(min(left, CLIP_MAX_NEW_TOKENS) for left in lefts)
        if max(lefts, default=0) <= CLIP_MAX_NEW_TOKENS:
            self._expected_then = (who, self._tick, total)
        return total

    def _left(self, live: LiveRequest) -> int:
        return self._limit(live) - self._num_produced(live)

    def _join(self) -> None:
        if self._joining or self._sitting:
            self._num_changes += 1
        super()._join()

    def _leave(self, live: LiveRequest) -> None:
        self._num_changes += 1
        super()._leave(live)

    def _num_produced(self, live: LiveRequest) -> int:
        if not live.is_decoding:
            return live.num_sampled
        return live.context_base + self._tick + 1 - live.prompt_tokens

    def _cached_tokens(self, live: LiveRequest) -> int:
        return self.kv.lookup(live).num_blocks * self.kv.block_size

    def _continue_chunked(self, live: LiveRequest, budget: _Budget) -> None:
        """Gives the one prompt that was cut its next chunk, as far as memory reaches."""
        size = self.kv.block_size
        lacking = live.num_tokens - live.num_computed
        room = self.kv.num_free * size + -live.num_computed % size
        num_tokens = min(lacking, room, budget.chunk if budget.chunk is not None else lacking)
        if num_tokens <= 0:
            return
        context = live.num_computed
        self.kv.take(self._blocks_of_chunk(live, num_tokens))
        live.num_computed = context + num_tokens
        self._prefills.append((live, num_tokens, context))
        reserve = self._reserve(live) if num_tokens == lacking else 0
        budget.charge(self._in_pages(num_tokens), reserve=reserve)

    def _add(self, live: LiveRequest, budget: _Budget) -> bool:
        """Admits the head of the queue; returns whether the batch may go on."""
        size, hit = self.kv.block_size, self.kv.lookup(live)
        lacking = live.num_tokens - hit.num_blocks * size
        pages = self._in_pages(lacking)
        # The hit is locked from now on, so that it is no longer room that could be freed.
        memory = budget.memory - hit.num_free_blocks * size
        if lacking + self._reserve(live) >= memory:
            return False
        num_tokens = lacking
        if budget.chunk is None:
            if self._prefills and pages >= budget.input:
                return False
        elif pages > budget.chunk:
            num_tokens = budget.chunk // size * size
            if num_tokens <= 0:
                return False
        self._waiting.popleft()
        budget.memory = memory
        self._admit(live, hit, num_tokens)
        reserve = self._reserve(live) if num_tokens == lacking else size
        budget.charge(self._in_pages(num_tokens), reserve=reserve)
        return num_tokens == lacking

    def _reserve(self, live: LiveRequest) -> int:
        """Returns the tokens set aside for a new request's answer, a page for rounding included."""
        return min(self._limit(live) - live.num_sampled, CLIP_MAX_NEW_TOKENS) + self.kv.block_size

    def _in_pages(self, num_tokens: int) -> int:
        size = self.kv.block_size
        return -(-num_tokens // size) * size

    # -- decodes ---------------------------------------------------------------------------------------------

    def _fit_or_retract(self) -> None:
        """Takes the blocks of the next decode step, retracting those with the fewest tokens first."""
        num_before = self._num_preempted
        self._fit_decodes(self._next_victim)
        if self._num_preempted == num_before:
            self._ratio.decay(1)
        else:
            staying = [live for live in self._running if live.is_decoding]
            self._ratio.estimate([(self._num_produced(live), self._limit(live)) for live in staying])

    def _next_victim(self) -> LiveRequest | None:
        decoding = [live for live in self._running if live.is_decoding]
        fewest = min(decoding, key=lambda live: (self._num_produced(live), -live.prompt_tokens), default=None)
        if fewest is None or len(decoding) > 1:
            return fewest
        # Alone, it can only be short of what a cut prompt holds.
        return self._prefilling[0] if self._prefilling and not self._prefills else fewest
