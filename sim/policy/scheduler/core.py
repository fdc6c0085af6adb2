"""What engines' schedulers have in common: all of the contract but what the next step holds.

An engine's policy derives from `SchedulerCore` and says in `_compose` what the next step holds: it grants
tokens to prompts (`_admit`, `_continue`), makes room for decodes (`_fit_decodes`), and returns whether they
take part. The rest, from joining decodes to the batch, is the same for all (`books.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ....hwmodels.step import DecodeGroup
from ...request import Request
from ..batch import Batch
from ..kv.blocks import KvCache
from ..kv.group import GroupKvCache
from ..kv.tiers.cache import TieredKvCache
from ..kv.tiers.job import TierJob
from ..live_request import LiveRequest
from ..moves import Move, moves_of
from ..samples import live_requests
from .aside import preempting_in_time
from .base import Outlook
from .books import StepBooks


class SchedulerCore(StepBooks):
    """A scheduler but for what its engine decides."""

    knows_time = False
    pads_decodes = False

    def __init__(
        self,
        *,
        kv: KvCache,
        max_model_len: int,
        block_bytes: int = 0,
        max_new_tokens: int | None = None,
    ) -> None:
        super().__init__(kv)
        self._block_bytes = block_bytes
        self.moves = moves_of(kv)
        self._has_tiers = isinstance(kv, TieredKvCache)
        self.now = 0.0
        self.due_at: float | None = None
        self.dropped: list[tuple[Request, str]] = []
        self._max_model_len = max_model_len
        self._max_new_tokens = max_new_tokens

    # -- what an engine says ---------------------------------------------------------------------------------

    def _compose(self) -> bool:
        """Decides the next step by granting tokens to prompts; returns whether the decodes take part."""
        raise NotImplementedError

    def _refusal(self, prompt_tokens: int, num_output_tokens: int) -> str | None:
        """Returns why such a request can never be served, None if it can."""
        # The last token is sampled, but its KV is never computed.
        longest = prompt_tokens + num_output_tokens - 1
        return "exceeds_kv_cache" if longest > self.kv.num_blocks * self.kv.block_size else None

    def _limit(self, live: LiveRequest) -> int:
        """Returns how long the engine must expect an answer to become at most [tokens]."""
        asked = self._max_new_tokens
        if asked is None:
            return live.num_output_tokens
        return max(live.num_output_tokens, min(asked, self._max_model_len - live.prompt_tokens))

    # -- the contract ----------------------------------------------------------------------------------------

    def add(self, request: Request) -> str | None:
        """Queues a request unless it can never be served; its answer ends at the context limit."""
        room = self._max_model_len - request.prompt_tokens
        if room < 1:
            return "prompt_exceeds_max_model_len"
        num_output_tokens = min(request.output_tokens, room)
        refusal = self._refusal(request.prompt_tokens, num_output_tokens)
        if refusal is None:
            samples = live_requests(request, num_output_tokens)
            if isinstance(self.kv, GroupKvCache):
                samples[0].siblings = samples[1:]
                samples = samples[:1]
            for live in samples:
                self._enqueue(live)
            self._is_blocked = False
        return refusal

    def _enqueue(self, live: LiveRequest) -> None:
        """Queues a new request; at the tail unless the engine does otherwise."""
        self._waiting.append(live)

    def schedule(self) -> Batch | None:
        """Decides the next step and commits it; None if no request can take part in one."""
        self._is_blocked = False
        self._join()
        has_decodes = self._compose()
        num_decodes = self._decodes.count if has_decodes else 0
        if not self._prefills and not num_decodes:
            return None
        self.step += 1
        return self._commit(num_decodes)

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next, None while someone prefills or may be admitted."""
        if (self.num_waiting and not self._is_blocked) or self._prefilling:
            return None
        if self._was_stalled or self._sitting:
            return None
        self._join()
        return self._ahead()

    def _ahead(self) -> Outlook | None:
        """Returns the steps of the decodes alone, up to the next last token or a shortage of blocks."""
        num_free = self.kv.num_free
        ahead = self._decodes.ahead(self._tick, num_free)
        return preempting_in_time(ahead, self._decodes, self._tick, num_free) if self._has_tiers else ahead

    def decodes(self) -> DecodeGroup:
        """Returns the decodes that the next step would hold."""
        return self._group()

    def computed_decodes(self, decodes: DecodeGroup) -> DecodeGroup:
        """Returns what the GPU computes for these decodes; just them unless the engine pads."""
        return decodes

    def can_advance(self) -> bool:
        """Returns whether there are decodes and the blocks suffice for one more step of them."""
        return self._decodes.count > 0 and self._decodes.blocks_for(self._tick + 1) <= self.kv.num_free

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last of them."""
        decodes = self._decodes
        num_blocks = decodes.blocks_for_steps(self._tick + 1, num_steps)
        if num_blocks:
            self.kv.take(num_blocks)
        self.step += num_steps
        self._tick += num_steps
        return decodes.pop_final(self._tick) if decodes.next_final == self._tick else ()

    def block_growth(self) -> tuple[int, ...]:
        """Returns the blocks that each coming step takes while only today's decodes go on."""
        return self._decodes.growth(self._tick + 1)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks; who was preempted after the last token has none any more."""
        self._is_blocked = False
        for live in finished:
            if self._running.pop(live, self) is not self:
                self.kv.release(live, is_finished=True)

    def moved(self, move: Move) -> bool:
        """Hears that a move has ended; returns whether the next step may differ because of it."""
        if not isinstance(move.owner, TierJob):
            return False
        move.owner.on_end()
        # What has come into a tier may be loaded by who waits.
        self._is_blocked = self._is_blocked and not self._waiting
        return bool(self._waiting)

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        tick = self._tick
        self.kv.check(
            (live, live.context_base + tick if live.is_decoding else live.num_computed)
            for live in self._running
        )
