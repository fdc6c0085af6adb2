"""Conversations in the form of ShareGPT, as JSONL: every answered message becomes a request.

A line is ``{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}``; a
message has a text, `value`, or a length, `num_tokens`. The prompt of a turn is the conversation so far,
answers included, so it shares a prefix with the turn before it.
Source: https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered (the form of the records);
https://help.openai.com/en/articles/4936856 (about four characters of English per token).

SIMPLIFIED: no chat template; effect: prompts are short of a few tokens per message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....errors import TraceError, nearest_choice
from ...request import ContentRun, output_content_id
from ..arrange import in_arrival_order
from ..arrivals import Extent, arrival_times
from ..content import pack_contents
from ..demand import Demand
from ..spec import ShareGptSpec
from ..streams import stream
from ..synthetic import clients_of
from .lines import Row, check_count, field, json_rows, shown

# Speakers as the public files spell them: those who ask or set the scene, and those who answer.
_ASKING = ("human", "user", "system", "tool")
_ANSWERING = ("gpt", "assistant", "chatgpt", "bard", "bing")


class Message(NamedTuple):
    """One message: what it holds, who speaks, and whether its length was estimated from a text."""

    run: ContentRun
    is_answer: bool
    is_estimated: bool


class Turn(NamedTuple):
    """One request: its conversation, its place there, and the runs of its prompt."""

    session_id: int
    turn: int
    prompt: tuple[ContentRun, ...]
    output_tokens: int
    is_estimated: bool


def load_sharegpt(spec: ShareGptSpec, path: Path, *, seed: int) -> Demand:
    """Returns the turns as requests, in order of arrival.

    In an open loop conversations begin as `arrivals` says, and a turn comes `turn_interval_s` after the one
    before it. In a closed loop turns are sent one conversation after another.
    SIMPLIFIED: a turn does not wait for its predecessor's answer; effect: under overload they overlap.
    Raises: TraceError naming the first malformed line.
    """
    turns = list(islice(_turns(spec, path), spec.num_requests))
    if not turns:
        raise TraceError(path, None, "holds no answered message")
    sessions = np.array([turn.session_id for turn in turns])
    places = np.array([turn.turn for turn in turns])
    num_clients = clients_of(spec.arrivals)
    begins = arrival_times(spec.arrivals, stream(seed, "arrivals"), Extent(int(sessions[-1]) + 1))
    demand = Demand(
        begins[sessions] + (0.0 if num_clients else spec.turn_interval_s) * places,
        np.array([sum(run.num_tokens for run in turn.prompt) for turn in turns]),
        np.array([turn.output_tokens for turn in turns]),
        contents=pack_contents(turn.prompt for turn in turns),
        session_id=sessions,
        turn=places,
        num_clients=num_clients,
        origin=f"sharegpt conversations {spec.path}",
    )
    estimated = any(turn.is_estimated for turn in turns)
    notes = (f"lengths are texts at {spec.chars_per_token:g} characters per token",) if estimated else ()
    # Interleaving the conversations is no disorder of the file: the note on sorting is dropped.
    return replace(in_arrival_order(demand), notes=notes)


def _turns(spec: ShareGptSpec, path: Path) -> Iterator[Turn]:
    """Yields the turns of all conversations; row i's answer carries the content id of request i."""
    session_id = num_rows = 0
    for line, row in json_rows(path):
        messages = _messages(row, spec.chars_per_token, path, line)
        turns = list(islice(_turns_of(messages, session_id, num_rows), spec.max_turns))
        yield from turns
        num_rows += len(turns)
        session_id += bool(turns)


def _turns_of(messages: list[Message], session_id: int, first_row: int) -> Iterator[Turn]:
    prompt: list[ContentRun] = []
    turn, is_asked, is_estimated = 0, False, False
    for run, is_answer, estimated in messages:
        is_estimated |= estimated
        if is_answer and is_asked:
            yield Turn(session_id, turn, tuple(prompt), run.num_tokens, is_estimated)
            prompt.append(ContentRun(output_content_id(first_row + turn), run.num_tokens))
            turn += 1
        else:
            prompt.append(run)
        is_asked = not is_answer


def _messages(row: Row, chars_per_token: float, path: Path, line: int) -> list[Message]:
    """Returns the messages of one conversation; empty texts are left out."""
    items = field(row, "conversations", path, line)
    if not isinstance(items, list):
        raise TraceError(path, line, f"conversations must be a list (got {shown(items)})")
    messages = []
    for place, item in enumerate(items):
        where = f"conversations[{place}]"
        if not isinstance(item, dict):
            raise TraceError(path, line, f"{where} must be an object (got {shown(item)})")
        is_answer = _is_answer(item, where, path, line)
        if "num_tokens" in item:
            size = check_count(item["num_tokens"], f"{where}.num_tokens", path, line)
            messages.append(Message(ContentRun(_content_id(f"{line}/{place}"), size), is_answer, False))
            continue
        text = item.get("value")
        if not isinstance(text, str):
            raise TraceError(path, line, f"{where} must have a text, value, or a length, num_tokens")
        if text:
            run = ContentRun(_content_id(f"{is_answer}{text}"), math.ceil(len(text) / chars_per_token))
            messages.append(Message(run, is_answer, True))
    return messages


def _is_answer(item: Row, where: str, path: Path, line: int) -> bool:
    speaker = item.get("from")
    if speaker in _ANSWERING or speaker in _ASKING:
        return speaker in _ANSWERING
    hint = nearest_choice(speaker, _ASKING + _ANSWERING)
    also = f"; did you mean {hint!r}?" if hint else ""
    raise TraceError(path, line, f"{where}.from is no known speaker (got {shown(speaker)}){also}")


def _content_id(key: str) -> int:
    """Returns an id >= 0 that is the same on every machine; equal texts get equal ids."""
    return int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "big") >> 2
