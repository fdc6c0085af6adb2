"""The recorder: append-only columns of what happened, written by the world, read by `outcome`.

Request columns are filled in by row; steps are appended as runs: one row stands for `num_steps` steps that
differ only along a straight line, so that a leap costs one row. `outcome/tables.py` expands them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from ...hwmodels.step import DecodeLine
from ..request import Request
from .fleet_totals import FleetTotals
from .gaps import GapSketch
from .tier_totals import LinkTotals, TierTotals


class Status(IntEnum):
    """How a request ended, or where it stood when the run was cut off."""

    PENDING = 0  # never arrived: the run was cut off before
    WAITING = 1
    RUNNING = 2
    FINISHED = 3
    REJECTED = 4
    FAILED = 5  # lost with its replica, and not sent again


class StepRun(NamedTuple):
    """`num_steps` consecutive steps of one replica.

    Step i starts where step i-1 ended, the first at `started_at` [s]; it lasts and costs what `line` says
    for i. With more than one step there are only decodes, each one token: context grows by `num_decodes`
    a step, and `block_growth[(i - 1) % len(block_growth)]` more blocks are in use after step i >= 1.
    kv_blocks_used, num_running and num_waiting are counts just after the step was scheduled.
    """

    replica: int
    first_step: int
    started_at: float
    num_steps: int
    num_prefill_tokens: int
    num_prefill_chunks: int
    num_decodes: int
    sum_decode_context: int
    num_padded_tokens: int
    num_sampled: int
    num_running: int
    num_waiting: int
    num_preempted: int
    kv_blocks_used: int
    line: DecodeLine
    block_growth: tuple[int, ...] = ()

    def after_first_step(self) -> StepRun:
        """Returns the run without its first step."""
        line, growth = self.line, self.block_growth
        later = zip(line.base_terms, line.slope_terms, strict=True)
        return self._replace(
            first_step=self.first_step + 1,
            started_at=self.started_at + line.base_s,
            num_steps=self.num_steps - 1,
            sum_decode_context=self.sum_decode_context + self.num_decodes,
            kv_blocks_used=self.kv_blocks_used + growth[0],
            line=line._replace(
                base_s=line.base_s + line.slope_s,
                num_steps=line.num_steps - 1,
                base_terms=tuple(base + slope for base, slope in later),
            ),
            block_growth=(*growth[1:], growth[0]),
        )


@dataclass(frozen=True, slots=True)
class ReplicaTotals:
    """Sums over a replica's life that stay cheap without step rows.

    busy_s: time with a step running [s]. term_s: its split by cost term. bubble_share: of the time of
    `num_stages` pipeline stages with a step running, that in which they computed nothing; None without
    stages.
    lived_s: time it was up [s], None for the whole run. num_kv_blocks: usable blocks. prefix_*: tokens looked
    up, hit, and missed by reason.
    """

    replica: int
    pool: str
    num_steps: int
    num_extrapolated_steps: int
    busy_s: float
    term_s: dict[str, float]
    flops: float
    hbm_bytes: float
    num_kv_blocks: int
    block_size: int
    prefix_query_tokens: int
    prefix_hit_tokens: int
    prefix_misses: dict[str, int]
    max_running: int
    num_stages: int = 1
    bubble_share: float | None = None
    lived_s: float | None = None


class Recorder:
    """Columns of one run, one row per request of the workload, in its order.

    Times are seconds since the start, nan for what has not happened. `reasons` names why a rejected
    request was rejected. `*_step_ended_at` are the ends of the steps that gave a request its first and last
    token, before the front end; empty without step rows.
    """

    def __init__(self, num_requests: int, *, record_steps: bool) -> None:
        nan, zeros = float("nan"), bytes(8 * num_requests)
        self.num_requests = num_requests
        self.arrived_at = array("d", [nan]) * num_requests
        self.scheduled_at = array("d", [nan]) * num_requests
        self.first_token_at = array("d", [nan]) * num_requests
        self.finished_at = array("d", [nan]) * num_requests
        self.first_step_ended_at = array("d", [nan]) * (num_requests if record_steps else 0)
        self.last_step_ended_at = array("d", [nan]) * (num_requests if record_steps else 0)
        self.output_tokens = array("q", zeros)
        self.cached_tokens = array("i", bytes(4 * num_requests))
        self.num_preemptions = array("i", bytes(4 * num_requests))
        self.recomputed_tokens = array("i", bytes(4 * num_requests))
        self.replica = array("i", [-1]) * num_requests
        self.status = array("b", bytes(num_requests))
        self.reasons: dict[int, str] = {}
        self.gaps = GapSketch()
        self.steps: list[StepRun] | None = [] if record_steps else None
        self.replicas: list[ReplicaTotals] = []
        self.tiers: list[TierTotals] = []
        self.links: list[LinkTotals] = []
        self.fleet: FleetTotals | None = None
        self.num_unsent = 0  # requests rejected, without being sent, together with those they waited for
        self.ended_at = 0.0

    def lost(self, request: Request) -> None:
        """Forgets what a replica that crashed had done for a request: its client starts again."""
        nan, index = float("nan"), request.index
        self.scheduled_at[index] = self.first_token_at[index] = nan
        if self.steps is not None:
            self.first_step_ended_at[index] = nan
        self.replica[index] = -1

    def failed(self, request: Request, reason: str) -> None:
        """Notes a request that was given up after a crash."""
        self.status[request.index] = Status.FAILED
        self.reasons[request.index] = reason

    def has_ended(self) -> bool:
        """Returns whether every request has."""
        return not any(status in self.status for status in (Status.PENDING, Status.WAITING, Status.RUNNING))

    def refused(self, request: Request, reason: str) -> None:
        """Notes a request that no replica was to serve."""
        self.status[request.index] = Status.REJECTED
        self.reasons[request.index] = reason
