"""Conversations in a Mooncake trace, found by its hash ids: which request goes on from which."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..demand import Demand, IntColumn
from ..parents import Parents, pack_parents


class Found(NamedTuple):
    """Session and turn of each request, and the request that it goes on from, if any."""

    session_id: IntColumn
    turn: IntColumn
    parents: Parents


def find_sessions(demand: Demand, block_ids: IntColumn, ends: IntColumn, size: int) -> Found:
    """Returns who goes on from whom.

    A request goes on from one that arrived before it, whose whole blocks all begin its prompt, if its prompt
    has room for that one's prompt and answer: from the longest such, the latest of equals, and each is gone
    on from once.
    block_ids, ends: ids of all prompts' blocks of `size` tokens, as in `block_contents`.
    SIMPLIFIED: prompts below one block are never gone on from, and a second try of a turn begins a session;
    effect: more and shorter sessions than there were.
    """
    arrived_at, prompts = demand.arrived_at.tolist(), demand.prompt_tokens.tolist()
    outputs = demand.output_tokens.tolist()
    sessions: list[int] = []
    turns: list[int] = []
    parents: list[tuple[int, ...]] = []
    open_rows: dict[int, int] = {}  # by the id of their last whole block
    num_sessions = start = 0
    for row, (end, prompt) in enumerate(zip(ends.tolist(), prompts, strict=True)):
        whole = block_ids[start : start + prompt // size].tolist()
        parent = -1
        for block in reversed(whole):
            before = open_rows.get(block, row)
            has_room = prompt >= prompts[before] + outputs[before]
            if has_room and arrived_at[before] < arrived_at[row]:
                parent = open_rows.pop(block)
                break
        if whole:
            open_rows[whole[-1]] = row
        sessions.append(sessions[parent] if parent >= 0 else num_sessions)
        turns.append(turns[parent] + 1 if parent >= 0 else 0)
        parents.append((parent,) if parent >= 0 else ())
        num_sessions += parent < 0
        start = end
    return Found(np.array(sessions, np.int64), np.array(turns, np.int64), pack_parents(parents))
