"""The rows of conversations as they are written: prompts that grow, requests that wait for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..request import ContentRun, output_content_id
from .content import pack_contents
from .demand import Demand
from .parents import pack_parents


class Answer(NamedTuple):
    """How long an answer is [tokens], and how much of it is reasoning."""

    output_tokens: int
    reasoning_tokens: int = 0


class Prompt:
    """A conversation so far. The runs that it begins with are shared with other sessions."""

    def __init__(self, shared: Sequence[ContentRun] = ()) -> None:
        self._num_shared = len(shared)
        self.runs = list(shared)
        self.num_tokens = sum(run.num_tokens for run in shared)

    def add(self, *runs: ContentRun) -> None:
        """Adds what was said."""
        self.runs += runs
        self.num_tokens += sum(run.num_tokens for run in runs)

    def copy(self) -> Prompt:
        """Returns a conversation that goes on from here by itself."""
        other = Prompt(self.runs[: self._num_shared])
        other.add(*self.runs[self._num_shared :])
        return other

    def forget(self, rows: Rows) -> None:
        """Renames all but what is shared: what was computed of it can't be found again."""
        own = sum(run.num_tokens for run in self.runs[self._num_shared :])
        if own:
            self.runs[self._num_shared :] = [rows.new_run(own)]


class Rows:
    """Collects the requests of all sessions.

    first_content_id: ids below it name what sessions share. keeps_reasoning: whether an answer's reasoning
    stays in the prompts that go on from it.
    """

    def __init__(self, *, first_content_id: int, keeps_reasoning: bool) -> None:
        self._next_id = first_content_id
        self._keeps_reasoning = keeps_reasoning
        self._session_id, self._begins_at = -1, 0.0
        self._begins: list[float] = []
        self._sessions: list[int] = []
        self._turns: list[int] = []
        self._prompts: list[tuple[ContentRun, ...]] = []
        self._answers: list[Answer] = []
        self._parents: list[tuple[int, ...]] = []
        self._delays: list[float] = []

    def __len__(self) -> int:
        return len(self._answers)

    def begin_session(self, session_id: int, begins_at: float) -> None:
        """Lets the requests that follow belong to this session, which begins then [s]."""
        self._session_id, self._begins_at = session_id, begins_at

    def add(
        self, turn: int, prompt: Prompt, answer: Answer, *, parents: Sequence[int], delay_s: float = 0.0
    ) -> int:
        """Adds a request, sent `delay_s` [s] after the answers of all `parents`; returns its row.

        Without parents it is sent when its session begins.
        """
        self._begins.append(self._begins_at)
        self._sessions.append(self._session_id)
        self._turns.append(turn)
        self._prompts.append(tuple(prompt.runs))
        self._answers.append(answer)
        self._parents.append(tuple(parents))
        self._delays.append(delay_s if parents else 0.0)
        return len(self) - 1

    def new_run(self, num_tokens: int) -> ContentRun:
        """Returns tokens that nothing before them equals."""
        self._next_id += 1
        return ContentRun(self._next_id - 1, num_tokens)

    def visible_tokens(self, row: int) -> int:
        """Returns the tokens of an answer that later prompts hold."""
        answer = self._answers[row]
        return answer.output_tokens - (0 if self._keeps_reasoning else answer.reasoning_tokens)

    def answer(self, row: int) -> ContentRun:
        """Returns an answer as a piece of the prompts after it.

        Without its reasoning it stands right behind its prompt, where the reasoning stood when it was
        written: the known prefix ends there, and the answer is computed anew.
        """
        if self.visible_tokens(row) == self._answers[row].output_tokens:
            return ContentRun(output_content_id(row), self._answers[row].output_tokens)
        return self.new_run(self.visible_tokens(row))

    def demand(self, *, origin: str) -> Demand:
        """Returns the requests as columns."""
        outputs, reasoning = np.array(self._answers, dtype=np.int64).T
        return Demand(
            np.array(self._begins, dtype=np.float64),
            np.array([sum(run.num_tokens for run in prompt) for prompt in self._prompts], dtype=np.int64),
            outputs.copy(),
            contents=pack_contents(self._prompts),
            session_id=np.array(self._sessions, dtype=np.int64),
            turn=np.array(self._turns, dtype=np.int64),
            reasoning_tokens=reasoning.copy(),
            parents=pack_parents(self._parents),
            delay_s=np.array(self._delays, dtype=np.float64),
            origin=origin,
        )
