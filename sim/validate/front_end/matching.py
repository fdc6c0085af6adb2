"""Which steps of an engine's record served which request of the client's.

The record has no names of requests. But prompts begin in the order of sending, a chunk goes on where the
last one of its request ended, and from its first token on a request gets one in every step; so the chunks
tell the step of each request's first token, and its number of tokens that of its last. The recorded number
of decodes proves each step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....errors import TraceError
from ....hwmodels.step import Chunk
from ..recorded_steps import RecordedStep, num_preemptions

# Requests sent at nearly the same instant may reach the queue in another order, by so many places at most.
_PLACES_AHEAD = 3

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RequestSteps:
    """The steps of each request, by their place in the record; its length or more: after its end.

    order: the requests as they were admitted, by their place in the arguments. The others are in that
    order: when its prompt began, and which steps gave its first and last token.
    """

    order: Ints
    admitted: Ints
    first: Ints
    last: Ints


def match_requests(
    sent_at: NDArray[np.float64],
    prompt_tokens: Ints,
    output_tokens: Ints,
    cached_tokens: Ints,
    steps: Sequence[RecordedStep],
    path: Path,
) -> RequestSteps:
    """Returns the steps of every request; `cached_tokens` of its prompt are never computed.

    Raises: TraceError, at `path`, for a record that these requests cannot have left, or that has preemptions,
    after which prompts begin again.
    """
    if num_preemptions(list(steps)):
        raise TraceError(path, None, "has preemptions, after which steps cannot be told apart by request")
    sent = np.argsort(sent_at, kind="stable").tolist()
    prompts = [_Prompt(row, int(prompt_tokens[row]), int(cached_tokens[row])) for row in sent]
    line = _Line(prompts, output_tokens.tolist())
    for place, step in enumerate(steps):
        why = line.take(place, step)
        if why is not None:
            raise TraceError(path, None, f"step {place + 1} of the record {why}")
    after = len(steps)
    rows = [prompt.row for prompt in [*line.begun, *line.waiting]]
    admitted = np.array([line.admitted.get(row, after) for row in rows], dtype=np.int64)
    first = np.array([line.first.get(row, after) for row in rows], dtype=np.int64)
    order = np.array(rows, dtype=np.int64)
    return RequestSteps(order, admitted, first, first + output_tokens[order] - 1)


@dataclass(slots=True, eq=False)
class _Prompt:
    """A request by its row, the tokens of its prompt, and how many of them are in the KV cache."""

    row: int
    num_tokens: int
    num_computed: int

    def takes(self, chunk: Chunk) -> bool:
        """Whether the chunk goes on where this prompt is."""
        return self.num_computed == chunk.context_len <= self.num_tokens - chunk.query_len


@dataclass(slots=True)
class _Line:
    """Requests on their way through the steps: waiting, in their prompts, decoding."""

    waiting: list[_Prompt]
    output_tokens: Sequence[int]
    begun: list[_Prompt] = field(default_factory=list)
    admitted: dict[int, int] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)
    _partial: list[_Prompt] = field(default_factory=list)
    _num_decoding: int = 0
    _num_last: Counter[int] = field(default_factory=Counter)

    def take(self, place: int, step: RecordedStep) -> str | None:
        """Lets a step pass; returns why these requests cannot have left it, None if they can."""
        in_step: list[_Prompt] = []
        for chunk in step.chunks:
            prompt = self._prompt_of(chunk, place)
            if prompt is None:
                told = f"{chunk.query_len} tokens after {chunk.context_len}"
                return f"holds a chunk of {told} that is no request's"
            prompt.num_computed += chunk.query_len
            in_step.append(prompt)
        for _ in range(step.num_decodes - self._num_decoding):
            # A prompt's single token is recorded as a decode.
            prompt = self._single(in_step, place)
            if prompt is None:
                return f"holds {step.num_decodes} decodes where its requests have {self._num_decoding}"
            prompt.num_computed += 1
            in_step.append(prompt)
        if step.num_decodes < self._num_decoding:
            return f"holds {step.num_decodes} decodes where its requests have {self._num_decoding}"
        self._finish_prompts(place)
        self._num_decoding -= self._num_last.pop(place, 0)
        return None

    def _prompt_of(self, chunk: Chunk, place: int) -> _Prompt | None:
        """Returns whose chunk it is, which may be a request's that begins with it."""
        for prompt in self._partial:
            if prompt.takes(chunk):
                return prompt
        for ahead, prompt in enumerate(islice(self.waiting, _PLACES_AHEAD)):
            if prompt.takes(chunk):
                return self._begin(ahead, place)
        return None

    def _single(self, in_step: Sequence[_Prompt], place: int) -> _Prompt | None:
        """Returns the prompt that got a single token: it has no more, or the step's others left one."""
        outside = next((prompt for prompt in self._partial if prompt not in in_step), None)
        if outside is not None or not self.waiting:
            return outside
        rest = self.waiting[0].num_tokens - self.waiting[0].num_computed
        return self._begin(0, place) if in_step or rest == 1 else None

    def _begin(self, ahead: int, place: int) -> _Prompt:
        prompt = self.waiting.pop(ahead)
        self.begun.append(prompt)
        self._partial.append(prompt)
        self.admitted[prompt.row] = place
        return prompt

    def _finish_prompts(self, place: int) -> None:
        for prompt in [prompt for prompt in self._partial if prompt.num_computed == prompt.num_tokens]:
            self._partial.remove(prompt)
            self.first[prompt.row] = place
            self._num_decoding += 1
            self._num_last[place + self.output_tokens[prompt.row] - 1] += 1
