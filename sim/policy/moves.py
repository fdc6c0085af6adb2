"""Moves of KV from one tier of memory to another: policies decide them, the world times them."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable


class When(Enum):
    """How a move and the step that was decided with it depend on each other.

    BEFORE: the step starts when the move has ended. ALONG: the step computes a layer as soon as its part
    has arrived, so it ends a layer's time after the move at the earliest. AFTER: the move starts when the
    step has ended, and nothing waits for it. BESIDE: not at all.
    """

    BEFORE = "before"
    ALONG = "along"
    AFTER = "after"
    BESIDE = "beside"


class Move(NamedTuple):
    """`num_bytes` from the tier `source` to the tier `target`, in `num_pieces` separate copies.

    owner: whatever the policy that decided it wants back when it has ended. start_at: it starts at this
    instant at the earliest [s]; with no bytes it just ends then, and wakes the policy.
    """

    source: str
    target: str
    num_bytes: int
    num_pieces: int
    when: When
    owner: object = None
    start_at: float = 0.0


@runtime_checkable
class Moving(Protocol):
    """A KV cache that decides moves of its own."""

    moves: list[Move]


def moves_of(kv: object) -> list[Move]:
    """Returns the list in which a KV cache puts its moves, for its scheduler to use, too; else a new one."""
    return kv.moves if isinstance(kv, Moving) else []
