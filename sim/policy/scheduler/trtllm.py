"""TensorRT-LLM's schedulers: one says who may run, for want of memory, the other what fits into the step.

The capacity scheduler walks the active requests in the order of arrival. GUARANTEED_NO_EVICT lets a request
start only if its KV fits to the end; MAX_UTILIZATION if the next step's does, and pauses whoever arrived
last when an earlier one finds no block; STATIC_BATCH is the first one, but lets nobody start while others
generate. The micro-batch scheduler then takes generating requests with a token each, and prompts as far as
the step's tokens last, whole or in chunks of whole blocks.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/{capacityScheduler,microBatchScheduler,kvCacheManager}.cpp
(behaviour, read 2026-11).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence

from ....hwmodels.step import Chunk
from ..batch import Batch, Computed
from ..kv.blocks import KvCache, PrefixHit
from ..live_request import LiveRequest
from .base import Outlook
from .completion import CompletionBook
from .core import SchedulerCore
from .trtllm_chunks import equal_progress, first_come_first_served
from .trtllm_reuse import ReuseDelay
from .trtllm_spec import TrtllmSpec

__all__ = ["TrtllmScheduler", "TrtllmSpec"]


class TrtllmScheduler(SchedulerCore):
    """TensorRT-LLM's scheduler over any KV cache.

    _places: requests' places in the list of active ones, which a paused request keeps. _book: blocks that are
    promised, to answers' ends, or with MAX_UTILIZATION to prompts' ends: TensorRT-LLM allocates them at once.
    SIMPLIFIED: prompts get the step's tokens after all decodes, while MAX_UTILIZATION without chunks lets an
    earlier prompt go before a later decode; effect: none unless the reuse delay has reordered them.
    SIMPLIFIED: without chunks, a paused request that has grown beyond max_num_tokens comes back in chunks,
    where TensorRT-LLM drops the tokens beyond and generates them anew; effect: less work for such requests.
    """

    def __init__(self, spec: TrtllmSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(
            kv=kv, max_model_len=max_model_len, block_bytes=block_bytes, max_new_tokens=spec.max_new_tokens
        )
        self._evicts = spec.capacity_scheduler_policy == "MAX_UTILIZATION"
        self._is_static = spec.capacity_scheduler_policy == "STATIC_BATCH"
        self._max_num_tokens, self._max_batch_size = spec.max_num_tokens, spec.max_batch_size
        self._is_chunked = spec.enable_chunked_prefill
        is_fair = spec.context_chunking_policy == "EQUAL_PROGRESS"
        self._share = equal_progress if is_fair else first_come_first_served
        self._is_packed = spec.remove_input_padding
        self._book = CompletionBook(kv)
        self._delay = ReuseDelay(kv, is_on=not self._is_static)
        self._places: dict[LiveRequest, int] = {}
        self._num_arrived = 0
        self._computed: list[tuple[LiveRequest, int]] = []  # prompts that ended in the step decided last

    # -- the contract ----------------------------------------------------------------------------------------

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next."""
        self._publish()
        return super().outlook()

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        if not self._evicts:
            self._book.took(self._decodes.blocks_for_steps(self._tick + 1, num_steps))
        return super().advance(num_steps)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots, blocks and what was promised."""
        for live in finished:
            self._book.ended(live)
            del self._places[live]
        super().finish(finished)

    def _enqueue(self, live: LiveRequest) -> None:
        self._places[live] = self._num_arrived
        self._num_arrived += 1
        super()._enqueue(live)

    def _requeue(self, victim: LiveRequest) -> None:
        in_order = list(self._waiting)
        insort(in_order, victim, key=self._places.__getitem__)
        self._waiting = deque(in_order)

    def _preempt(self, victim: LiveRequest) -> None:
        self._book.ended(victim)
        super()._preempt(victim)

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        if not self._is_chunked and prompt_tokens > self._max_num_tokens:
            return "exceeds_token_budget"
        num_slots = prompt_tokens + num_output_tokens - self._evicts
        return "exceeds_kv_cache" if self._book.whole(num_slots) > self.kv.num_blocks else None

    def _limit(self, live: LiveRequest) -> int:
        # What the cache could never hold is cut off what clients ask for.
        room = self.kv.num_blocks * self.kv.block_size - live.prompt_tokens
        return max(live.num_output_tokens, min(super()._limit(live), room))

    # -- who may run -----------------------------------------------------------------------------------------

    def _compose(self) -> bool:
        """Makes room for decodes, then gives prompts what memory and tokens are left."""
        self._publish()
        if self._evicts:
            self._pause_for_decodes()
        contexts: list[LiveRequest] = []
        generates = len(self._running) > len(self._prefilling)
        if not (self._is_static and generates):
            contexts = sorted([*self._prefilling, *self._startable()], key=self._places.__getitem__)
        self._give_tokens(contexts)
        # Tokens for prompts come free with a decode's last step, blocks and slots when that has ended.
        self._is_blocked = not contexts and not self._delay.has_delayed
        if not self._evicts:
            self._book.took(self._decodes.blocks_for(self._tick + 1))
        self._fit_decodes(lambda: None)
        return True

    def _publish(self) -> None:
        """Makes the prompts reusable that the last step completed."""
        for live, num_tokens in self._computed:
            if live in self._running:
                self.kv.computed(live, num_tokens)
        self._computed = []

    def _spare(self) -> int:
        """Returns the blocks that a new request may be promised."""
        return self._book.num_spare - self._decodes.blocks_for(self._tick + 1) * self._evicts

    def _pause_for_decodes(self) -> None:
        """Pauses those that arrived last until the next step of all decodes finds its blocks."""
        while self._spare() < 0:
            victim = self._last_started(after=-1)
            if victim is None:
                return
            self._preempt(victim)

    def _last_started(self, *, after: int) -> LiveRequest | None:
        """Returns the last request of the list that has begun and has a token to come, behind a place."""
        started = [
            live
            for live in (*self._prefilling, *self._running)
            if (live.is_decoding or live in self._prefilling) and self._places[live] > after
        ]
        return max(started, key=self._places.__getitem__, default=None)

    def _startable(self) -> list[LiveRequest]:
        """Returns the waiting requests that memory is there for; makes it, where the policy pauses others."""
        startable: list[LiveRequest] = []
        num_promised, waiting = 0, self._waiting
        self._delay.begin(self._prefilling)
        for live in waiting:
            hit = self.kv.lookup(live)
            if self._delay.delays(live, hit):
                continue
            needed, num_before = self._needed(live, hit), self._num_preempted
            while not self._has_room(len(startable), needed + num_promised):
                victim = self._last_started(after=self._places[live]) if self._evicts else None
                if victim is None:
                    return startable
                self._preempt(victim)
            startable.append(live)
            num_promised += needed
            if self._num_preempted > num_before:
                return startable  # nobody behind those who were paused is looked at
        return startable

    def _has_room(self, num_startable: int, needed: int) -> bool:
        has_slot = len(self._running) + num_startable < self._max_batch_size
        return has_slot and needed <= self._spare()

    def _needed(self, live: LiveRequest, hit: PrefixHit) -> int:
        """Returns the blocks promised to a request, and those of its hit that are free now."""
        return self._whole(live) - hit.num_blocks + hit.num_free_blocks

    def _whole(self, live: LiveRequest) -> int:
        num_slots = live.num_tokens if self._evicts else live.prompt_tokens + self._limit(live)
        return self._book.whole(num_slots)

    # -- what the step holds ---------------------------------------------------------------------------------

    def _give_tokens(self, contexts: Sequence[LiveRequest]) -> None:
        """Gives each prompt its share of the step's tokens, as far as they last."""
        budget = self._max_num_tokens - self._decodes.count
        lacking = [self._lacking(live) for live in contexts]
        is_split = self._is_chunked and sum(lacking) > budget
        sizes = self._share(lacking, budget, self.kv.block_size) if is_split else lacking
        for live, size in zip(contexts, sizes, strict=True):
            if size > budget:
                if size <= self._max_num_tokens or budget <= 0:
                    return  # whole prompts only, and nobody passes the first that does not fit
                size = budget
            if size and not self._give(live, size):
                return
            budget -= size

    def _lacking(self, live: LiveRequest) -> int:
        if live in self._running:
            return live.num_tokens - live.num_computed
        return live.num_tokens - self._context(self.kv.lookup(live))

    def _context(self, hit: PrefixHit) -> int:
        return hit.num_blocks * self.kv.block_size + hit.num_copied_tokens

    def _give(self, live: LiveRequest, size: int) -> bool:
        """Lets a prompt begin or go on; False if what it would have hit was evicted for those before it."""
        if live in self._running:
            self._go_on(live, size)
            return True
        hit = self.kv.lookup(live)
        lacking = live.num_tokens - self._context(hit)
        must_be_whole = not self._is_chunked and lacking <= self._max_num_tokens
        if self._needed(live, hit) > self._spare() or (must_be_whole and lacking > size):
            return False
        if self._waiting[0] is live:
            self._waiting.popleft()
        else:
            self._waiting.remove(live)
        self._admit(live, hit, min(size, lacking))
        self._book.promise(live, self._whole(live))
        return True

    def _go_on(self, live: LiveRequest, size: int) -> None:
        num_blocks, context = self._blocks_of_chunk(live, size), live.num_computed
        self._book.took(num_blocks)
        self.kv.take(num_blocks)
        live.num_computed = context + size
        self._prefills.append((live, size, context))

    def _commit(self, num_decodes: int) -> Batch:
        batch = super()._commit(num_decodes)
        for live in batch.completing:
            self._computed.append((live, live.num_tokens - 1))
            if self._evicts:
                self._book.ended(live)  # its prompt is there; it takes blocks as it grows
        if batch.chunks and not self._is_packed:
            longest, context = (max(sizes) for sizes in list(zip(*batch.chunks, strict=True))[:2])
            padded = Chunk(longest, context, sum(chunk.count for chunk in batch.chunks))
            batch.computed = Computed((padded,), batch.decodes, batch.num_sampled)
        return batch
