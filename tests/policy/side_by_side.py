"""Drives the counting scheduler and the literal one through the same requests, and compares every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from simllm.sim.policy.batch import Batch
from simllm.sim.policy.kv.plain import PlainKvCache
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Scheduler, VllmV1Spec
from simllm.sim.request import ContentRun, Request, output_content_id

from .reference import ReferenceScheduler, ReferenceStep, Sequence


class Turn(NamedTuple):
    """One request of a session, sent `delay` steps after the answer before: own tokens, and its answer."""

    own_tokens: int
    output_tokens: int
    delay: int


class Session(NamedTuple):
    """Requests of which each continues from the one before; the first begins with text of its family."""

    family: int
    shared_tokens: int
    turns: tuple[Turn, ...]


class SideBySide:
    """Both schedulers under the same requests, steps and outputs."""

    def __init__(
        self, spec: VllmV1Spec, *, num_blocks: int, block_size: int, caches: bool, max_len: int
    ) -> None:
        cache = PrefixKvCache if caches else PlainKvCache
        kv = cache(num_blocks=num_blocks, block_size=block_size)
        self.counting = VllmV1Scheduler(spec, kv=kv, max_model_len=max_len)
        self.literal = ReferenceScheduler(
            spec, num_blocks=num_blocks, block_size=block_size, caches=caches, max_model_len=max_len
        )
        self.depth = 2 if spec.async_scheduling else 1
        self.in_flight: deque[tuple[Batch, ReferenceStep]] = deque()
        self.num_preemptions = 0
        self._num_preempted = 0  # since the last step that held anything
        self._live: dict[int, LiveRequest] = {}  # admitted at least once

    def add(self, request: Request) -> bool:
        """Queues the request in both, unless it can never be served."""
        is_refused = self.counting.add(request) is not None
        if not is_refused:
            self.literal.add(request)
        return not is_refused

    def fill(self) -> None:
        """Decides steps until the pipeline is full or nothing can be decided."""
        while len(self.in_flight) < self.depth:
            batch, step = self.counting.schedule(), self.literal.schedule()
            self._num_preempted += step.num_preempted
            assert (batch is None) == (not step.scheduled)
            if batch is None:
                return
            self._compare(batch, step)
            self.num_preemptions += self._num_preempted
            self._num_preempted = 0
            self.in_flight.append((batch, step))

    def complete(self) -> list[LiveRequest]:
        """Processes the oldest output in both; returns the requests that end with it."""
        batch, step = self.in_flight.popleft()
        self.counting.finish(batch.finishing)
        self._compare_ended(batch.finishing, self.literal.process_output(step))
        return list(batch.finishing)

    def leap(self, max_steps: int) -> list[LiveRequest] | None:
        """Passes decode-only steps at once in one and one by one in the other; None if none lie ahead."""
        outlook = self.counting.outlook()
        if outlook is None or self.in_flight:
            return None
        num_ahead, decodes, ends_with_last_token = outlook
        num_steps = min(num_ahead, max_steps)
        growth, num_free = self.counting.block_growth(), self.counting.kv.num_free
        ended: list[Sequence] = []
        for i in range(num_steps):
            assert not ended, "someone ended before the last step"
            step = self.literal.schedule()
            assert not step.admitted and not step.num_preempted
            contexts = [context + 1 for _, _, context in step.scheduled]
            assert [num_new for _, num_new, _ in step.scheduled] == [1] * decodes.count
            assert sum(contexts) == decodes.sum_context + i * len(contexts)
            assert max(contexts) == decodes.max_context + i
            num_free -= growth[i % len(growth)]
            assert len(self.literal.pool.free) == num_free
            ended = self.literal.process_output(step)
        finishing = self.counting.advance(num_steps)
        assert self.counting.kv.num_free == num_free
        assert bool(ended) == (ends_with_last_token and num_steps == num_ahead)
        self.counting.finish(finishing)
        self._compare_ended(finishing, ended)
        return list(finishing)

    def _compare_ended(self, finishing: Iterable[LiveRequest], ended: list[Sequence]) -> None:
        assert sorted(live.index for live in finishing) == sorted(s.request.index for s in ended)
        assert self.counting.kv.num_free == len(self.literal.pool.free)
        self.counting.check()
        for sequence in ended:
            live = self._live[sequence.request.index]
            assert live.num_output_tokens == sequence.num_output
            assert live.num_preemptions == sequence.num_preemptions
            assert live.num_recomputed_tokens == sequence.num_recomputed

    def _compare(self, batch: Batch, step: ReferenceStep) -> None:
        """What a step holds; kernels can't tell a prompt's last single token from a decode."""
        ones = [context + 1 for _, num_new, context in step.scheduled if num_new == 1]
        chunks = [(num_new, context, 1) for _, num_new, context in step.scheduled if num_new > 1]
        assert sorted(batch.chunks) == sorted(chunks)
        assert batch.decodes[1:] == (len(ones), sum(ones), max(ones, default=0))
        assert batch.num_tokens == sum(num_new for _, num_new, _ in step.scheduled)
        assert batch.num_sampled == len(step.sampling)
        self._live.update((live.index, live) for live in batch.admitted)
        hits = [(sequence.request.index, sequence.num_cached_tokens) for sequence in step.admitted]
        assert [(live.index, live.num_cached_tokens) for live in batch.admitted] == hits
        assert batch.num_preempted == self._num_preempted
        assert batch.num_running == len(self.literal.running)
        assert batch.num_waiting == sum(not self._is_ending(s) for s in self.literal.waiting)
        assert batch.kv_blocks_used == self.counting.kv.num_blocks - len(self.literal.pool.free)

    def _is_ending(self, sequence: Sequence) -> bool:
        """A victim whose last token is on its way is queued by vLLM, but will never run again."""
        live = self._live.get(sequence.request.index)
        return live is not None and sequence.num_output + sequence.num_placeholders == live.num_output_tokens


class Player:
    """Plays sessions on both schedulers; time is counted in outputs processed.

    shares: prompts have content. stride: decode-only steps pass so many at a time, 0 for one by one.
    """

    def __init__(self, both: SideBySide, sessions: list[Session], *, shares: bool, stride: int = 0) -> None:
        self.both = both
        self._sessions = sessions
        self._shares = shares
        self._stride = stride
        self._due = [(session.turns[0].delay, number, 0) for number, session in enumerate(sessions)]
        self._said: list[tuple[ContentRun, ...]] = [
            (ContentRun(session.family, session.shared_tokens),) if session.shared_tokens else ()
            for session in sessions
        ]
        self._playing: dict[int, tuple[int, int]] = {}
        self._num_sent = 0

    def play(self) -> None:
        """Plays to the end."""
        now = 0
        while self._due or self._playing:
            for due in sorted(due for due in self._due if due[0] <= now):
                self._due.remove(due)
                self._send(*due[1:])
            answered = self.both.leap(self._stride) if self._stride else None
            if answered is None:
                self.both.fill()
                assert self.both.in_flight or not self._playing, "requests wait for nothing"
                answered = self.both.complete() if self.both.in_flight else []
            now += 1
            for live in answered:
                self._answered(live, now)

    def _send(self, number: int, turn: int) -> None:
        own_tokens, output_tokens, _ = self._sessions[number].turns[turn]
        index = self._num_sent
        self._num_sent += 1
        content = (*self._said[number], ContentRun(1000 + index, own_tokens))
        self._said[number] = content
        size = sum(run.num_tokens for run in content)
        request = Request(index, 0.0, size, output_tokens, content if self._shares else None)
        if self.both.add(request):
            self._playing[index] = number, turn

    def _answered(self, live: LiveRequest, now: int) -> None:
        number, turn = self._playing.pop(live.index)
        self._said[number] += (ContentRun(output_content_id(live.index), live.num_output_tokens),)
        turns = self._sessions[number].turns
        if turn + 1 < len(turns):
            self._due.append((now + turns[turn + 1].delay, number, turn + 1))
