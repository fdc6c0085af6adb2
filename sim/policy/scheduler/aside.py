"""Requests that wait for their KV off the queue, while others go on: vLLM's WAITING_FOR_REMOTE_KVS.

Such a request holds the blocks that its KV is loaded into, but no slot. When its load has ended it returns
to its place in the queue and is admitted like any other, with less to compute. Others wait for what a
prefetch, or another request's load, brings them, and hold nothing.

The workers look for loads that have ended when they launch a step, and tell with its output. So with work
going on a request returns when the output of the first step decided after its load has arrived.

Source: vLLM v1/core/sched/scheduler.py, skipped_waiting and _update_waiting_for_remote_kv, and
v1/worker/kv_connector_model_runner_mixin.py, get_finished (read 2026-11).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..decode_set import DecodeSet
from ..kv.blocks import KvCache, PrefixHit, num_blocks_for
from ..kv.tiers.cache import TieredKvCache
from ..kv.tiers.job import TierJob
from ..live_request import LiveRequest
from ..moves import Move
from .base import Outlook


class SetAside:
    """The requests of one scheduler that are set aside; `waiting` is its queue.

    depth: steps in flight, so that the output of a step arrives when so many more are decided.
    """

    def __init__(self, kv: TieredKvCache, waiting: deque[LiveRequest], depth: int) -> None:
        self._kv = kv
        self._waiting = waiting
        self._depth = depth
        self._lives: dict[LiveRequest, None] = {}
        self._ended: list[LiveRequest] = []  # their loads have ended, and no worker has looked yet
        self._num_looks = 0
        self._seen: deque[tuple[int, list[LiveRequest]]] = deque()  # those that a look found ended

    @property
    def is_watching(self) -> bool:
        """Whether loads have ended whose requests have not returned."""
        return bool(self._ended or self._seen)

    def __len__(self) -> int:
        return len(self._lives)

    def arrived(self, live: LiveRequest) -> None:
        """Hears of a request that joins the queue."""
        self._kv.arrived(live)

    def put(self, hit: PrefixHit, *, reserves_all: bool, watermark_blocks: int) -> bool:
        """Sets the head of the queue aside, if there are the blocks to load into; returns whether.

        Those that are loaded or load must still find the rest of their blocks, or all would wait for each
        other's.
        """
        live, plan = self._waiting[0], hit.load
        assert plan is not None, "only what waits for KV is set aside"
        if plan.load is not None:
            size = self._kv.block_size
            tokens = live.num_tokens if reserves_all else hit.num_blocks * size
            needed = num_blocks_for(tokens, size) - hit.num_blocks + hit.num_free_blocks
            if needed + self._num_lacking() + watermark_blocks > self._kv.num_free:
                return False
        self._waiting.popleft()
        self._lives[live] = None
        self._kv.set_aside(live, plan)
        return True

    def moved(self, move: Move) -> bool:
        """Hears that a move has ended; returns whether requests return to the queue, now or soon."""
        if not isinstance(move.owner, TierJob):
            return False
        lives = move.owner.on_end()
        self._ended += lives
        return bool(lives)

    def look(self) -> None:
        """Lets return whose loads an earlier step found ended, and notes which the one decided now does."""
        self._num_looks += 1
        while self._seen and self._seen[0][0] + self._depth <= self._num_looks:
            self._return(self._seen.popleft()[1])
        if self._ended:
            self._seen.append((self._num_looks, self._ended))
            self._ended = []

    def return_all(self) -> bool:
        """Lets all return whose loads have ended, as nothing else runs; returns whether there were any."""
        lives = [live for _, found in self._seen for live in found] + self._ended
        self._seen.clear()
        self._ended = []
        self._return(lives)
        return bool(lives)

    def make_room(self) -> bool:
        """Takes the blocks of the last loaded request in the queue but its head; False if there is none.

        They would be lost to the head for ever if nobody else runs who frees some.
        """
        waiting = self._waiting
        return any(self._kv.give_up(waiting[place]) for place in range(len(waiting) - 1, 0, -1))

    def _return(self, lives: Iterable[LiveRequest]) -> None:
        """Puts requests back in order of arrival; who was preempted stays in front."""
        waiting = self._waiting
        for live in lives:
            self._lives.pop(live, None)
            place = 0
            while place < len(waiting) and waiting[place].index < live.index:
                place += 1
            waiting.insert(place, live)

    def _num_lacking(self) -> int:
        """Returns the blocks that loaded requests, and those that load, will need beyond what they hold."""
        size = self._kv.block_size
        return sum(
            num_blocks_for(live.num_tokens, size) - live.num_computed // size
            for live in (*self._lives, *self._kv.loaded)
            if live.num_computed
        )


def preempting_in_time(ahead: Outlook | None, decodes: DecodeSet, step: int, num_free: int) -> Outlook | None:
    """Returns the outlook of a leap that ends before the step after it may lack blocks.

    Such a step preempts, and what it preempts goes down to the tiers: it must be decided at its own instant,
    not when the leap is over.
    """
    if ahead is None or not ahead[2] or decodes.blocks_for_steps(step + 1, ahead[0] + 1) <= num_free:
        return ahead
    return ahead[0], ahead[1], False


def set_aside_by(kv: KvCache, waiting: deque[LiveRequest], depth: int) -> SetAside | None:
    """Returns where a scheduler sets requests aside, None if its cache has no tiers to wait for."""
    return SetAside(kv, waiting, depth) if isinstance(kv, TieredKvCache) else None
