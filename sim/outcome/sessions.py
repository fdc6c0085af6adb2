"""What users of conversations see: how long a turn takes, and how much of its prompt was cached."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...units import MS_PER_S
from ..world.recorder import Status
from .metrics import latency_scalars, ratio
from .rows import Flags, Floats, RequestRows

MAX_TURNS = 32
"""Turns from here on are summed up in one line."""


def session_summary(rows: RequestRows) -> dict[str, Any] | None:
    """Returns statistics of turns and what was cached by turn; None without sessions.

    A turn may be several requests: those that call tools, or an agent's branches.
    """
    in_session = rows.session_id >= 0
    if not in_session.any():
        return None
    by_turn = [_turn(rows, turn) for turn in range(_num_lines(rows, in_session))]
    return {
        "num_sessions": len(np.unique(rows.session_id[in_session])),
        **latency_scalars("turn", turn_latencies(rows)),
        "by_turn": by_turn,
    }


def turn_latencies(rows: RequestRows) -> Floats:
    """Returns per turn of a session first arrival to last answer [s]; nan unless all of it finished."""
    in_session = np.flatnonzero(rows.session_id >= 0)
    keys = np.stack([rows.session_id[in_session], rows.turn[in_session]], axis=1)
    unique, turns = np.unique(keys, axis=0, return_inverse=True)
    turns = turns.reshape(-1)
    begins, ends = np.full(len(unique), np.inf), np.zeros(len(unique))
    is_done = rows.status[in_session] == Status.FINISHED
    np.minimum.at(begins, turns[is_done], rows.arrived_at[in_session][is_done])
    np.maximum.at(ends, turns[is_done], rows.finished_at[in_session][is_done])
    is_whole = np.bincount(turns, weights=~is_done, minlength=len(unique)) == 0
    latencies = np.full(len(unique), np.nan)
    latencies[is_whole] = ends[is_whole] - begins[is_whole]
    return latencies


def _num_lines(rows: RequestRows, in_session: Flags) -> int:
    return min(int(rows.turn[in_session].max(initial=-1)) + 1, MAX_TURNS)


def _turn(rows: RequestRows, turn: int) -> dict[str, Any]:
    """Returns the figures of the finished requests of a turn; the last line is of all later turns, too."""
    is_turn = rows.turn >= turn if turn == MAX_TURNS - 1 else rows.turn == turn
    done = rows.with_status(Status.FINISHED) & (rows.session_id >= 0) & is_turn
    prompts, cached = int(rows.prompt_tokens[done].sum()), int(rows.cached_tokens[done].sum())
    return {
        "turn": turn,
        "completed": int(done.sum()),
        "prompt_tokens": prompts,
        "cached_tokens": cached,
        "cached_share": ratio(cached, prompts),
        "mean_ttft_ms": float(rows.ttft_s[done].mean() * MS_PER_S) if done.any() else None,
    }
