"""What became of a fleet: what it cost, what broke, and what that lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class FleetSize(NamedTuple):
    """From `at` [s] on so many replicas of a pool serve, and so many are paid for."""

    at: float
    pool: int
    num_serving: int
    num_paid: int


@dataclass(slots=True)
class FleetTotals:
    """Sums over a run.

    lives: from when to when each replica was up [s], by its number, draining included; infinity if it still
    is. paid_s: replica-seconds paid for, by pool. sizes: after each change. num_launches: by the autoscaler.
    num_lost: requests that a crash ended, each time that it did; num_retries: those sent again. up_s, down_s:
    sums over places of the time in which they served, or should have. lost_tokens: computed for nothing.
    """

    paid_s: list[float]
    lives: dict[int, tuple[float, float]] = field(default_factory=dict)
    sizes: list[FleetSize] = field(default_factory=list)
    num_launches: int = 0
    num_drained: int = 0
    num_crashes: int = 0
    num_slowed: int = 0
    num_lost: int = 0
    num_retries: int = 0
    up_s: float = 0.0
    down_s: float = 0.0
    lost_tokens: int = 0
    has_faults: bool = False

    @property
    def availability(self) -> float | None:
        """Of the time in which replicas should have served, the share in which they did."""
        should_s = self.up_s + self.down_s
        return self.up_s / should_s if should_s else None
