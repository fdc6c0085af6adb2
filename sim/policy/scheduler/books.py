"""The books that every scheduler built on `SchedulerCore` keeps: who runs, prefills, decodes, waits for what.

Engines build their steps from `_admit`, `_continue`, `_fit_decodes` and the like; `_commit` turns what they
granted into a batch.

Decodes count their own steps (`_tick`): a step without them, as prefill-first engines have, leaves them as
they are, at no cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ....hwmodels.step import Chunk, DecodeGroup
from ..batch import Batch
from ..decode_set import NO_DECODES
from ..kv.blocks import KvCache, PrefixHit
from ..kv.group import GroupKvCache
from ..kv.window import decode_set_for
from ..live_request import LiveRequest
from .chunk_plan import Prefill


class StepBooks:
    """Queues, slots and the step that is being decided.

    _waiting: requests in the order in which the engine looks at them. _running: those that hold a slot, in
    the order of admission. _prefilling: those of them whose prompts are computed in part. _is_blocked: the
    waiting ones cannot be admitted before a request finishes or arrives, so that decodes may leap.
    """

    def __init__(self, kv: KvCache) -> None:
        self.kv = kv
        self.step = 0
        self._tick = 0  # steps with decodes so far
        self._waiting: deque[LiveRequest] = deque()
        self._running: dict[LiveRequest, None] = {}
        self._prefilling: list[LiveRequest] = []
        self._decodes = decode_set_for(kv)
        self._is_blocked = False
        # Of the step that is being decided.
        self._prefills: list[Prefill] = []
        self._admitted: list[LiveRequest] = []
        self._paused: list[LiveRequest] = []
        self._rejoined: list[LiveRequest] = []
        self._num_preempted = 0
        self._joining: list[LiveRequest] = []  # their prefill ended in the step before
        self._was_stalled = False  # the step before left the decodes out
        self._late: list[LiveRequest] = []  # they have joined since decodes stalled, all and in this step
        self._late_now: list[LiveRequest] = []
        self._sitting: list[LiveRequest] = []  # decodes that sat the step before out

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission."""
        return len(self._waiting)

    # -- what an engine may say otherwise --------------------------------------------------------------------

    def _requeue(self, victim: LiveRequest) -> None:
        """Queues a request that lost its blocks; at the head unless the engine does otherwise."""
        self._waiting.appendleft(victim)

    def _group(self) -> DecodeGroup:
        """Returns the decodes of the next step with decodes, as they are computed."""
        return self._decodes.group(self._tick + 1)

    def _chunks(self, prefills: Sequence[Prefill]) -> tuple[Chunk, ...]:
        """Returns the prompts' chunks of the next step as they are computed."""
        return tuple(Chunk(num_tokens, context) for _, num_tokens, context in prefills)

    # -- what engines build their steps from -----------------------------------------------------------------

    def _admit(self, live: LiveRequest, hit: PrefixHit, num_tokens: int) -> None:
        """Gives a request, just taken from the queue, a slot and `num_tokens` tokens behind its `hit`."""
        context = hit.num_blocks * self.kv.block_size + hit.num_copied_tokens
        self.kv.admit(live, hit, context + num_tokens)
        if context or live.num_preemptions:
            live.note_hit(context)
        live.num_computed = context + num_tokens
        self._running[live] = None
        self._prefills.append((live, num_tokens, context))
        self._admitted.append(live)

    def _continue(self, live: LiveRequest, num_tokens: int) -> None:
        """Gives a request whose prompt is computed in part `num_tokens` more; the blocks must be free."""
        context = live.num_computed
        self.kv.take(self._blocks_of_chunk(live, num_tokens))
        live.num_computed = context + num_tokens
        self.kv.computed(live, live.num_computed)
        self._prefills.append((live, num_tokens, context))

    def _blocks_of_chunk(self, live: LiveRequest, num_tokens: int) -> int:
        """Returns the blocks that `num_tokens` more tokens of a prompt take."""
        size, context = self.kv.block_size, live.num_computed
        return -(-(context + num_tokens) // size) - -(-context // size)

    def _fit_decodes(self, next_victim: Callable[[], LiveRequest | None]) -> None:
        """Takes the blocks of one step of all decodes, preempting until they suffice.

        next_victim: who is to lose its blocks; None if there is nobody, which ends the search.
        """
        decodes, kv, tick = self._decodes, self.kv, self._tick + 1
        while (needed := decodes.blocks_for(tick)) > kv.num_free:
            victim = next_victim()
            if victim is None:
                return
            self._preempt(victim)
        if needed:
            kv.take(needed)

    def _preempt(self, victim: LiveRequest) -> None:
        """Takes a running request's blocks away; it computes everything again when it is admitted anew."""
        self._stop(victim)
        self.kv.release(victim, is_finished=False)
        victim.num_lost_tokens = max(victim.num_lost_tokens, victim.num_computed)
        victim.num_computed = 0
        if victim.num_sampled < victim.num_output_tokens:
            # Otherwise its last token is on its way: it ends without ever running again.
            self._requeue(victim)

    def _stop(self, victim: LiveRequest) -> None:
        """Takes a running request out of decodes, prefills and slots; its blocks stay its own."""
        victim.num_preemptions += 1
        self._num_preempted += 1
        self._withdraw(victim)

    def _withdraw(self, victim: LiveRequest) -> None:
        """Does the same for a request that nobody preempts: it never comes back."""
        del self._running[victim]
        self._is_blocked = False
        if victim.is_decoding:
            self._leave(victim)
        elif victim in self._prefilling:
            self._prefilling.remove(victim)
        elif victim in self._sitting:
            self._sitting.remove(victim)

    def _resume(self, live: LiveRequest) -> None:
        """Lets a request decode from the next step on that was stopped and has its blocks back."""
        self._running[live] = None
        self._decodes.join(live, self._tick + 1)
        self._rejoined.append(live)

    def _sit_out(self, live: LiveRequest) -> None:
        """Leaves a decode out of this step only; it keeps its blocks and its slot."""
        self._leave(live)
        self._sitting.append(live)

    def _leave(self, live: LiveRequest) -> None:
        self._decodes.leave(live, self._tick + 1)
        for others in (self._late, self._rejoined):
            if live in others:  # when it got its last token is noted already
                others.remove(live)
                return
        self._paused.append(live)

    def _join(self) -> None:
        """Lets those decode who can from now on: their prefill has ended, or they sat one step out."""
        sitting, self._sitting = self._sitting, []
        for live in (*self._joining, *sitting):
            self._decodes.join(live, self._tick + 1)
        self._rejoined += sitting
        if self._was_stalled:
            self._late += self._joining
            self._late_now = self._joining
        self._joining = []

    # -- the batch -------------------------------------------------------------------------------------------

    def _commit(self, num_decodes: int) -> Batch:
        prefills, self._prefills = self._prefills, []
        admitted, self._admitted = self._admitted, []
        decodes, group, finishing = self._decodes, NO_DECODES, list[LiveRequest]()
        if num_decodes:
            group = self._group()
            self._tick += 1
            if decodes.next_final == self._tick:
                finishing = decodes.pop_final(self._tick)
        completing = self._sample(prefills, finishing)
        if self._prefilling or len(completing) < len(prefills):
            done = dict.fromkeys(completing)
            self._prefilling = [live for live in (*self._prefilling, *admitted) if live not in done]
        completing += self._fork(completing, finishing)
        chunks = self._chunks(prefills)
        group, chunks = _ones_as_decodes(group, chunks)
        num_continuing, rejoined = self._who_continues(num_decodes)
        paused, self._paused = self._paused, []
        late, self._late_now = self._late_now, []
        num_preempted, self._num_preempted = self._num_preempted, 0
        return Batch(
            step=self.step,
            chunks=chunks,
            decodes=group,
            num_tokens=group.count + sum(chunk.query_len * chunk.count for chunk in chunks),
            num_sampled=num_decodes + len(completing),
            num_continuing=num_continuing,
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            num_preempted=num_preempted,
            kv_blocks_used=self.kv.num_blocks - self.kv.num_free,
            completing=completing,
            finishing=finishing,
            paused=paused,
            rejoined=rejoined,
            admitted=admitted,
            stalls_decodes=self._was_stalled,
            late=late,
        )

    def _sample(self, prefills: Sequence[Prefill], finishing: list[LiveRequest]) -> list[LiveRequest]:
        """Returns whose prompts end in this step, with a token each; `finishing` gets who needs no more."""
        completing: list[LiveRequest] = []
        for live, num_tokens, context in prefills:
            if context + num_tokens < live.num_tokens:
                continue
            completing.append(live)
            live.num_sampled += 1
            (finishing if live.num_sampled == live.num_output_tokens else self._joining).append(live)
        return completing

    def _fork(self, completing: Sequence[LiveRequest], finishing: list[LiveRequest]) -> list[LiveRequest]:
        """Returns the samples that begin with the prompts which end in this step, with a token each."""
        begun: list[LiveRequest] = []
        for live in completing:
            if live.siblings and isinstance(self.kv, GroupKvCache):
                self.kv.fork(live)
                for sibling in live.siblings:
                    sibling.num_computed, sibling.num_sampled = live.num_computed, live.num_sampled
                    self._running[sibling] = None
                    done = sibling.num_sampled == sibling.num_output_tokens
                    (finishing if done else self._joining).append(sibling)
                begun += live.siblings
                live.siblings = ()
        return begun

    def _who_continues(self, num_decodes: int) -> tuple[int, list[LiveRequest]]:
        """Returns how many decodes got their last token together, and those who got theirs apart.

        Decodes that steps leave out wait together, which costs nothing; who joined them meanwhile, or sat
        a step out, is told apart.
        """
        self._was_stalled = not num_decodes and self._decodes.count > 0
        if not num_decodes:
            return 0, []
        rejoined = self._rejoined + self._late
        self._rejoined, self._late = [], []
        return num_decodes - len(rejoined), rejoined


def _ones_as_decodes(group: DecodeGroup, chunks: tuple[Chunk, ...]) -> tuple[DecodeGroup, tuple[Chunk, ...]]:
    """Returns both with chunks of one token counted as decodes: kernels don't tell them apart."""
    ones = [chunk for chunk in chunks if chunk.query_len == 1]
    if not ones:
        return group, chunks
    contexts = [chunk.context_len + 1 for chunk in ones]
    count = sum(chunk.count for chunk in ones)
    sum_context = sum((chunk.context_len + 1) * chunk.count for chunk in ones)
    merged = DecodeGroup(
        1, group.count + count, group.sum_context + sum_context, max(group.max_context, *contexts)
    )
    return merged, tuple(chunk for chunk in chunks if chunk.query_len > 1)
