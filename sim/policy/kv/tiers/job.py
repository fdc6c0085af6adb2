"""What moves of tiers carry as their owner: what is to happen when they have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...live_request import LiveRequest
from ...moves import Move, When
from .spec import TierName

if TYPE_CHECKING:
    from .failures import Failure


@dataclass(frozen=True, slots=True, eq=False)
class TierJob:
    """on_end() is called when the move has ended; returns the requests that wait for nothing any more."""

    on_end: Callable[[], Sequence[LiveRequest]]


@dataclass(slots=True)
class TierTraffic:
    """What one replica did with one tier.

    hit_tokens: prompt tokens found in it at first admission. loaded_tokens: with those that requests load
    once more after a preemption. recomputed_tokens: found, but computed as that was expected to be faster.
    prefetched_tokens: brought into it before they were asked for. read_bytes, written_bytes: moved out of
    it and into it. Of a store with failures: stale_hits, checksum_failures: loads that failed so;
    recomputed_by: tokens that were computed again although they had been stored, by cause.
    """

    hit_tokens: int = 0
    loaded_tokens: int = 0
    recomputed_tokens: int = 0
    prefetched_tokens: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    stale_hits: int = 0
    checksum_failures: int = 0
    recomputed_by: dict[str, int] = field(default_factory=dict)


class MoveBook:
    """The moves that a replica's tiers decide: `moves` not yet started, and the traffic of each tier by name.

    block_bytes: a block over all GPUs [B].
    """

    def __init__(self, names: Sequence[TierName], block_bytes: int) -> None:
        self.moves: list[Move] = []
        self.traffic = {name: TierTraffic() for name in names}
        self.block_bytes = block_bytes

    def move(self, source: str, target: str, num_blocks: int, when: When, job: TierJob) -> None:
        """Decides a move; `hbm` is no tier with traffic of its own."""
        num_bytes = num_blocks * self.block_bytes
        for name, traffic in self.traffic.items():
            traffic.read_bytes += num_bytes if name == source else 0
            traffic.written_bytes += num_bytes if name == target else 0
        # SIMPLIFIED: a block's layers lie side by side, so that it is one piece for each GPU; effect: up to a
        # third of the bandwidth too much where they don't (32 KiB pieces).
        self.moves.append(Move(source, target, num_bytes, num_blocks, when, job))

    def wake_at(self, at: float, job: TierJob, when: When = When.BESIDE) -> None:
        """Asks for a job to end at an instant [s], without moving anything."""
        self.moves.append(Move("", "", 0, 0, when, job, at))

    def failed(self, name: TierName, failure: Failure, block_size: int) -> None:
        """Counts what is computed again although a tier had it."""
        traffic, cause = self.traffic[name], failure.cause
        traffic.stale_hits += cause == "stale"
        traffic.checksum_failures += cause == "checksum"
        num_tokens = failure.num_blocks * block_size
        traffic.recomputed_by[cause] = traffic.recomputed_by.get(cause, 0) + num_tokens
