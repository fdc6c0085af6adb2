"""The contract of a scheduler: every engine's policy implements it, `world/engine.py` drives it.

A scheduler is pure policy. It knows no clock: `schedule` decides the next step from its queues and the KV
cache, `finish` hears that a step's output has arrived. With several steps in flight `schedule` is called
again before the output of the step before has arrived, as engines with asynchronous scheduling do; token
counts are known ahead, because a request's output length is.

Most steps are decodes and nothing else. A policy tells by `outlook` how many such steps lie ahead, and
commits them many at a time by `advance`, with the same result as that many calls of `schedule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ....hwmodels.step import DecodeGroup
from ...request import Request
from ..batch import Batch
from ..kv.blocks import KvCache
from ..live_request import LiveRequest
from ..moves import Move

Outlook = tuple[int, DecodeGroup, bool]
"""Steps of nothing but decodes that come next, whatever happens short of an arrival or an output.

How many steps; the decodes, as in the first of them; and whether someone gets the last token in the last
of them, else it is for want of blocks that they are not more.
"""


class Scheduler(Protocol):
    """Decides the steps of one replica.

    moves: moves of KV decided and not yet started; the engine takes them out after each decision.
    knows_time: the engine sets `now` [s] before it calls. due_at: the instant [s] at which the engine is to
    call `schedule` again though nothing has happened, None for never; read when `schedule` gave None, and
    with `knows_time` before a leap. dropped: requests given up, and why, for the engine to note.
    pads_decodes: `computed_decodes` is to be asked what decodes cost.
    """

    kv: KvCache
    moves: list[Move]
    knows_time: bool
    now: float
    due_at: float | None
    dropped: list[tuple[Request, str]]
    pads_decodes: bool

    @property
    def step(self) -> int:
        """The number of the last step decided; the first one is 1."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold a slot, those whose last output is still on its way included."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests that wait for admission, preempted ones included."""
        ...

    def add(self, request: Request) -> str | None:
        """Queues a request; returns why it is refused if it can never be served here, else None."""
        ...

    def schedule(self) -> Batch | None:
        """Decides the next step and commits it; None if no request can take part in one."""
        ...

    def outlook(self) -> Outlook | None:
        """Returns the decode-only steps that come next; None if the next step must be decided in full.

        Policies that must see every step always return None.
        """
        ...

    def decodes(self) -> DecodeGroup:
        """Returns the decodes that the next step would hold, if nothing else changed."""
        ...

    def computed_decodes(self, decodes: DecodeGroup) -> DecodeGroup:
        """Returns what the GPU computes for these decodes, the rows of requests that have ended included."""
        ...

    def can_advance(self) -> bool:
        """Returns whether there are decodes and the blocks suffice for one more step of them."""
        ...

    def advance(self, num_steps: int) -> Sequence[LiveRequest]:
        """Commits decode-only steps; returns who gets the last token in the last, nobody before it."""
        ...

    def block_growth(self) -> tuple[int, ...]:
        """Returns the blocks that each coming step takes while only today's decodes go on.

        Item i stands for step i after the one scheduled last; from the end it begins again.
        """
        ...

    def finish(self, finished: Sequence[LiveRequest]) -> None:
        """Frees what these requests hold: the output of their last step has arrived."""
        ...

    def moved(self, move: Move) -> bool:
        """Hears that a move has ended; returns whether the next step may differ because of it."""
        ...

    def check(self) -> None:
        """Raises: InvariantError if the blocks don't add up."""
        ...
