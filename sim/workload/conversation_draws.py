"""What is drawn for conversations before they are walked: turns, lengths, pauses, what prompts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..request import ContentRun
from .conversation_rows import Answer
from .conversation_spec import ConversationSpec, Documents
from .delays import sample_delays
from .demand import IntColumn
from .length_spec import LengthSpec
from .lengths import sample_lengths
from .reasoning import draw_reasoning
from .request_spec import SharedPrefix
from .streams import stream
from .synthetic import pick_popular, popularity

Runs = list[ContentRun]


class SessionDraws:
    """What was drawn for one session; an iterator gives its next one of a kind.

    num_turns: messages of the user. system_prompt: what its prompts begin with. documents: retrieved for
    each message. num_calls: tool calls before the answer to each message. messages, call_answers, answers,
    results, tasks: lengths. think_s, pauses_s [s].
    """

    __slots__ = (
        "answers",
        "call_answers",
        "documents",
        "messages",
        "num_calls",
        "num_turns",
        "pauses_s",
        "results",
        "system_prompt",
        "tasks",
        "think_s",
    )

    def __init__(self, num_turns: int, system_prompt: Runs) -> None:
        self.num_turns = num_turns
        self.system_prompt = system_prompt
        self.documents: Iterator[Runs] = iter(())
        self.num_calls: Iterator[int] = iter(())
        self.messages: Iterator[int] = iter(())
        self.answers: Iterator[Answer] = iter(())
        self.call_answers: Iterator[Answer] = iter(())
        self.results: Iterator[int] = iter(())
        self.tasks: Iterator[int] = iter(())
        self.think_s: Iterator[float] = iter(())
        self.pauses_s: Iterator[float] = iter(())


class Draws:
    """Draws everything at once, by kind.

    num_shared_contents: contents that sessions share are numbered below it.
    """

    def __init__(self, spec: ConversationSpec, *, seed: int, base_dir: Path) -> None:
        self._spec, self._seed, self._base_dir = spec, seed, base_dir
        num_prefixes = 0 if spec.system_prompt is None else spec.system_prompt.num_prefixes
        num_documents = 0 if spec.documents is None else spec.documents.num_documents
        self.num_shared_contents = num_prefixes + num_documents
        self._num_prefixes = num_prefixes

    def sessions(self) -> list[SessionDraws]:
        """Returns what is drawn for each session."""
        spec = self._spec
        turns = _geometric(self._rng("turns"), spec.turns.mean_turns, spec.num_sessions)
        turns = np.minimum(turns, spec.turns.max_turns or turns.max())
        sessions = [SessionDraws(*both) for both in zip(turns.tolist(), self._system_prompts(), strict=True)]
        num_turns = int(turns.sum())
        _hand_out(sessions, "messages", self._lengths("prompt_tokens", spec.prompt_tokens, num_turns), turns)
        think_s = sample_delays(spec.think_time, self._rng("think_time"), num_turns)
        _hand_out(sessions, "think_s", think_s, turns)
        self._draw_documents(sessions, turns)
        calls = self._draw_calls(sessions, turns)
        per_turn = 1 if spec.agents is None else 2 + spec.agents.num_branches * spec.agents.depth
        self._draw_answers(sessions, turns * per_turn, calls)
        if spec.agents is not None:
            per_turn = spec.agents.num_branches * spec.agents.depth
            tasks = self._lengths("task_tokens", spec.agents.task_tokens, num_turns * per_turn)
            _hand_out(sessions, "tasks", tasks, turns * per_turn)
        return sessions

    def _rng(self, name: str) -> np.random.Generator:
        return stream(self._seed, name)

    def _lengths(self, name: str, spec: LengthSpec, size: int) -> IntColumn:
        return sample_lengths(spec, self._rng(name), size, base_dir=self._base_dir)

    def _system_prompts(self) -> list[Runs]:
        spec = self._spec.system_prompt
        size = self._spec.num_sessions
        if spec is None:
            return [[] for _ in range(size)]
        lengths = self._lengths("prefix_tokens", spec.prefix_tokens, spec.num_prefixes).tolist()
        picked = self._picked_prefixes(spec, size)
        return [[] if one < 0 else [ContentRun(one, lengths[one])] for one in picked]

    def _picked_prefixes(self, spec: SharedPrefix, size: int) -> list[int]:
        rng = self._rng("prefixes")
        has_prefix = rng.random(size) < spec.share
        picked = pick_popular(rng, spec.num_prefixes, spec.zipf_exponent, size)
        result: list[int] = np.where(has_prefix, picked, -1).tolist()
        return result

    def _draw_documents(self, sessions: list[SessionDraws], turns: IntColumn) -> None:
        spec = self._spec.documents
        if spec is None:
            return
        lengths = self._lengths("document_tokens", spec.document_tokens, spec.num_documents).tolist()
        rng = self._rng("documents")
        weights = popularity(spec.num_documents, spec.zipf_exponent)
        for session, num_turns in zip(sessions, turns.tolist(), strict=True):
            session.documents = iter(self._retrieved(spec, rng, weights, lengths, num_turns))

    def _retrieved(
        self,
        spec: Documents,
        rng: np.random.Generator,
        weights: NDArray[np.float64],
        lengths: list[int],
        num_turns: int,
    ) -> list[Runs]:
        """Returns the documents of each turn of a session."""
        turns: list[Runs] = [[] for _ in range(num_turns)]
        for turn in turns if spec.turns == "all" else turns[:1]:
            picked = rng.choice(len(weights), spec.num_retrieved, replace=False, p=weights).tolist()
            turn += [ContentRun(self._num_prefixes + one, lengths[one]) for one in picked]
        return turns

    def _draw_calls(self, sessions: list[SessionDraws], turns: IntColumn) -> IntColumn:
        """Returns the number of tool calls of each session."""
        spec = self._spec.tools
        if spec is None:
            return np.zeros(len(sessions), dtype=np.int64)
        calls = _geometric(self._rng("tool_calls"), 1 + spec.mean_calls, int(turns.sum())) - 1
        calls = calls if spec.max_calls is None else np.minimum(calls, spec.max_calls)
        _hand_out(sessions, "num_calls", calls, turns)
        per_session = np.add.reduceat(calls, np.cumsum(turns) - turns)
        size = int(calls.sum())
        results = self._lengths("result_tokens", spec.result_tokens, size)
        _hand_out(sessions, "results", results, per_session)
        _hand_out(sessions, "pauses_s", sample_delays(spec.pause, self._rng("pauses"), size), per_session)
        return per_session

    def _draw_answers(self, sessions: list[SessionDraws], answers: IntColumn, calls: IntColumn) -> None:
        """Draws the answers and, with the same kind of reasoning, those that call tools."""
        spec = self._spec
        outputs = self._lengths("output_tokens", spec.output_tokens, int(answers.sum()))
        if spec.tools is not None:
            called = self._lengths("call_tokens", spec.tools.call_tokens, int(calls.sum()))
            outputs = np.concatenate([outputs, called])
        reasoning = np.zeros(len(outputs), dtype=np.int64)
        if spec.reasoning is not None:
            outputs, reasoning = draw_reasoning(
                spec.reasoning, outputs, seed=self._seed, base_dir=self._base_dir
            )
        drawn = np.stack([outputs, reasoning], axis=1)
        num_answers = int(answers.sum())
        _hand_out(sessions, "answers", drawn[:num_answers], answers)
        _hand_out(sessions, "call_answers", drawn[num_answers:], calls)


def _geometric(rng: np.random.Generator, mean: float, size: int) -> IntColumn:
    """Returns numbers from 1 on whose mean is `mean`: each goes on with the same probability."""
    drawn: IntColumn = rng.geometric(1 / mean, size).astype(np.int64)
    return drawn


def _hand_out(sessions: list[SessionDraws], name: str, values: NDArray[Any], counts: IntColumn) -> None:
    """Gives each session its part of `values`, pairs as answers."""
    plain = values.tolist() if values.ndim == 1 else [Answer(*pair) for pair in values.tolist()]
    start = 0
    for session, count in zip(sessions, counts.tolist(), strict=True):
        setattr(session, name, iter(plain[start : start + count]))
        start += count
