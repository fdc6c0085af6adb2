"""vLLM V1 over pipeline stages without asynchronous scheduling: a batch queue of one step per stage.

While a step passes the stages, the next one is decided from the requests that have no token on its way: the
waiting ones, prompts that go on with their next chunk, and the decodes of a step whose output has come. So
the decodes fall into micro-batches that take turns. Nobody balances them: requests decode with those beside
whom their prompts ended, and one micro-batch alone, if all prompts fit into one step.

Source: vLLM vllm/v1/engine/core.py (step_with_batch_queue) and vllm/v1/core/sched/scheduler.py: a request
whose tokens are all computed or in flight gets none (behaviour, read 2026-11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..batch import Batch
from ..decode_set import DecodeSet
from ..kv.blocks import KvCache
from ..kv.window import decode_set_for
from ..live_request import LiveRequest
from .base import Outlook
from .chunk_plan import Prefill, share_budget
from .vllm_v1 import VllmV1Scheduler
from .vllm_v1_spec import VllmV1Spec

# Turns of one micro-batch. A request that moves on from one to another leaves its old figures behind in the
# former's heaps, which must not be taken for those it has now.
_TURNS = 1 << 26


class MicroBatch:
    """Decodes that take their steps together. turn: the last step of their own, which contexts count by.

    joining: those whose prompts ended in the last of these. last_step: its number among all steps.
    """

    def __init__(self, decodes: DecodeSet, number: int) -> None:
        self.decodes = decodes
        self.joining: list[LiveRequest] = []
        self.turn = number * _TURNS
        self.last_step = 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody goes on in it."""
        return not (self.decodes.count or self.joining)


class PipelinedVllmV1Scheduler(VllmV1Scheduler):
    """vLLM V1's scheduler that waits for tokens in flight; every step is decided in full."""

    def __init__(self, spec: VllmV1Spec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0) -> None:
        super().__init__(spec, kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
        self._resting: deque[MicroBatch] = deque()  # their output has come
        self._in_flight: deque[MicroBatch] = deque()
        self._batch_of: dict[LiveRequest, MicroBatch] = {}  # of running requests that decode, or will next
        self._num_made = 0
        self._current = self._new_micro_batch()
        self._num_steps = 0
        self._strays: list[tuple[LiveRequest, int]] = []

    def schedule(self) -> Batch | None:
        """Decides the next step: of a micro-batch whose output has come, or of prompts alone."""
        batch = self._schedule_next()
        while batch is None and self._resting:
            batch = self._schedule_next()  # all of the one before were preempted
        return batch

    def _schedule_next(self) -> Batch | None:
        current = self._resting.popleft() if self._resting else self._new_micro_batch()
        follows = current.last_step
        self._current, self._decodes = current, current.decodes
        self._joining, current.joining = current.joining, []
        self.step = current.turn
        batch = super().schedule()
        current.turn, current.joining, self._joining = self.step, self._joining, []
        self.step = self._num_steps
        if batch is None:
            return None
        self._num_steps += 1
        self.step = batch.step = current.last_step = self._num_steps
        batch.follows = follows
        batch.strays, self._strays = self._strays, []
        for live in current.joining:
            self._batch_of[live] = current
        self._in_flight.append(current)
        return batch

    def _new_micro_batch(self) -> MicroBatch:
        self._num_made += 1
        return MicroBatch(decode_set_for(self.kv), self._num_made)

    def returned(self, step: int) -> None:
        """Hears that the output of a step has come: its decodes may go on."""
        assert self._in_flight[0].last_step == step, "outputs come in the order of their steps"
        done = self._in_flight.popleft()
        if not done.is_empty:
            self._resting.append(done)

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees slots and blocks."""
        super().finish(finished)
        for live in finished:
            self._batch_of.pop(live, None)

    def outlook(self) -> Outlook | None:
        """Returns None: who takes part in the next step depends on whose output comes.

        SIMPLIFIED: no leaps with micro-batches; effect: slower, same rows.
        """
        return None

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        self.kv.check((live, self._num_covered(live)) for live in self._running)

    def _num_covered(self, live: LiveRequest) -> int:
        return live.context_base + self._batch_of[live].turn if live.is_decoding else live.num_computed

    def _plan_chunks(self, step: int) -> list[Prefill]:
        """Shares the budget among the prompts and the decodes of this micro-batch."""
        running, prefilling, current = self._running, self._prefilling, self._current
        mine = [live for live in running if self._batch_of.get(live, current) is current]
        prefills, _ = share_budget(
            mine,
            prefilling,
            num_decodes=self._decodes.count,
            budget=self._budget,
            threshold=self._threshold,
            is_newest=next(reversed(running)) is prefilling[0],
        )
        return prefills

    def _preempt(self, step: int, prefills: list[Prefill]) -> None:
        """Preempts the newest request, of whichever micro-batch.

        SIMPLIFIED: one whose token is in flight may be admitted again before it has come; effect: vLLM
        computes one token less in that step, and it in the next.
        """
        victim = next(reversed(self._running))
        home = self._batch_of.pop(victim, self._current)
        if home is self._current:
            super()._preempt(step, prefills)
            return
        if victim in home.joining:
            home.joining.remove(victim)
            self._paused.append(victim)
        self._strays.append((victim, home.last_step))
        here, self._decodes = self._decodes, home.decodes
        super()._preempt(home.turn + 1, prefills)
        self._decodes = here
