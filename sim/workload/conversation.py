"""Conversations: sessions whose next request is sent when the answer before it has arrived.

Each session is walked once, request by request; all lengths, pauses and choices are drawn before, each kind
from its own random stream, so that changing one never reshuffles another.
"""

from __future__ import annotations

from pathlib import Path

from .arrivals import Extent, arrival_times
from .conversation_draws import Draws, SessionDraws
from .conversation_rows import Prompt, Rows
from .conversation_spec import Agents, ConversationSpec
from .demand import Demand
from .streams import stream
from .synthetic import clients_of


def converse(spec: ConversationSpec, *, seed: int, base_dir: Path) -> Demand:
    """Returns the requests of all sessions, in order of the sessions' beginnings.

    A request may be sent from its session's beginning on, once its parents have been answered; in a closed
    loop the first request of a session waits for the end of its client's session before.
    Raises: TraceError when a histogram's file is missing or malformed.
    """
    begins = arrival_times(spec.arrivals, stream(seed, "arrivals"), Extent(spec.num_sessions))
    num_clients = clients_of(spec.arrivals)
    draws = Draws(spec, seed=seed, base_dir=base_dir)
    rows = Rows(first_content_id=draws.num_shared_contents, keeps_reasoning=spec.keeps_reasoning)
    sessions = draws.sessions()
    last_rows: list[int] = []
    for session_id, (begins_at, session) in enumerate(zip(begins.tolist(), sessions, strict=True)):
        before = None
        if num_clients is not None and session_id >= num_clients:
            before = last_rows[session_id - num_clients]
        rows.begin_session(session_id, begins_at)
        last_rows.append(_session(spec, rows, session, before))
    demand = rows.demand(origin=f"conversations: {spec.num_sessions} sessions, {len(rows)} requests")
    if spec.reasoning is None:
        demand.reasoning_tokens = None
    return demand


def _session(spec: ConversationSpec, rows: Rows, draws: SessionDraws, before: int | None) -> int:
    """Adds the requests of a session, the first one after request `before`; returns the last one's row."""
    prompt = Prompt(draws.system_prompt)
    row = before
    for turn in range(draws.num_turns):
        prompt.add(*next(draws.documents, ()), rows.new_run(next(draws.messages)))
        is_too_long = spec.max_prompt_tokens is not None and prompt.num_tokens > spec.max_prompt_tokens
        if is_too_long and turn:
            break
        think_s = next(draws.think_s)
        if spec.agents is not None:
            row = _forked(spec.agents, rows, draws, prompt, turn, row, think_s)
        else:
            row = _with_tools(spec, rows, draws, prompt, turn, row, think_s)
    assert row is not None, "a session has a first turn"
    return row


def _with_tools(
    spec: ConversationSpec,
    rows: Rows,
    draws: SessionDraws,
    prompt: Prompt,
    turn: int,
    parent: int | None,
    delay_s: float,
) -> int:
    """Adds a turn: a request for each tool call, and one for the answer; returns its row."""
    for _ in range(next(draws.num_calls, 0)):
        parent = rows.add(turn, prompt, next(draws.call_answers), parents=_one(parent), delay_s=delay_s)
        prompt.add(rows.answer(parent), rows.new_run(next(draws.results)))
        delay_s = next(draws.pauses_s)
        if spec.tools is not None and spec.tools.kv == "drop":
            prompt.forget(rows)
    row = rows.add(turn, prompt, next(draws.answers), parents=_one(parent), delay_s=delay_s)
    prompt.add(rows.answer(row))
    return row


def _forked(
    spec: Agents,
    rows: Rows,
    draws: SessionDraws,
    prompt: Prompt,
    turn: int,
    parent: int | None,
    delay_s: float,
) -> int:
    """Adds a turn: a plan, branches that go on from it, and a join that reads what each found.

    The join's prompt holds the last answer of each branch; they follow other tokens than those behind which
    they were written, so no cache has them.
    """
    plan = rows.add(turn, prompt, next(draws.answers), parents=_one(parent), delay_s=delay_s)
    prompt.add(rows.answer(plan))
    last_rows: list[int] = []
    for _ in range(spec.num_branches):
        branch, row = prompt.copy(), plan
        for step in range(spec.depth):
            if step:
                branch.add(rows.answer(row))
            branch.add(rows.new_run(next(draws.tasks)))
            row = rows.add(turn, branch, next(draws.answers), parents=(row,))
        last_rows.append(row)
    prompt.add(*(rows.new_run(rows.visible_tokens(row)) for row in last_rows))
    join = rows.add(turn, prompt, next(draws.answers), parents=last_rows)
    prompt.add(rows.answer(join))
    return join


def _one(parent: int | None) -> tuple[int, ...]:
    return () if parent is None else (parent,)
