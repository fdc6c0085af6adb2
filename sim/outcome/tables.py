"""The tables of a run as streams of Arrow record batches: requests, steps and KV blocks over time.

A stream is made a batch at a time, so that writing a table costs the memory of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from math import ceil, log10
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...units import MS_PER_S
from ..world.recorder import ReplicaTotals, Status
from ..world.tier_totals import TierTotals
from .columns import categories, flags, floats, numbers, texts
from .kv_waste import Holdings
from .meta import RunMeta
from .rows import RequestRows
from .steps import StepRows, StepRuns
from .tiers import TIER_NAMES, content_at

ROWS_PER_BATCH = 1 << 16
MAX_KV_SAMPLES = 1_000
STATUS_NAMES = tuple(status.name.lower() for status in Status)


class TableStream(NamedTuple):
    """A table in the making: its schema, and its rows in batches (at least one, perhaps empty)."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def read_all(self) -> pa.Table:
        """Returns the whole table; the stream is used up."""
        return pa.Table.from_batches(self.batches, self.schema)


def request_table(rows: RequestRows, reasons: tuple[str, ...], meta: RunMeta) -> TableStream:
    """Returns one row per request, in the order of the workload."""
    batches = (_request_batch(part, reasons, meta) for part in rows.slices(ROWS_PER_BATCH))
    return _stream(batches)


def step_table(runs: StepRuns, meta: RunMeta) -> TableStream:
    """Returns one row per step, by replica and step, with a column for each cost term."""
    return _stream(_step_batch(rows, meta) for rows in runs.chunks(ROWS_PER_BATCH))


def kv_table(
    runs: StepRuns,
    replicas: list[ReplicaTotals],
    ended_at: float,
    tiers: Sequence[TierTotals] = (),
    holdings: Sequence[Holdings] = (),
) -> TableStream:
    """Returns the KV blocks in use by replica (at least one) and tier, at even instants to `ended_at` [s].

    Of a tier that replicas share `replica` is null, and in use are the blocks that it holds.

    Instants are multiples of 1, 2 or 5 times a power of ten of a second, `MAX_KV_SAMPLES` at most per
    replica. In use are the blocks of the step that runs; none while a replica idles. holdings: what requests
    held of each of `replicas`; without them filled and held tokens are null.
    """
    in_hbm = (_kv_batch(runs, totals, ended_at, held) for totals, held in zip_longest(replicas, holdings))
    return _stream(chain(in_hbm, (_tier_batch(totals, ended_at) for totals in tiers)))


def _stream(batches: Iterator[pa.RecordBatch]) -> TableStream:
    first = next(batches)

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return TableStream(first.schema, all_batches())


def _request_batch(rows: RequestRows, reasons: tuple[str, ...], meta: RunMeta) -> pa.RecordBatch:
    finished = rows.with_status(Status.FINISHED)
    decided = finished | rows.with_status(Status.REJECTED) | rows.with_status(Status.FAILED)
    has_slo = bool(meta.slo.limits_s)
    return pa.RecordBatch.from_pydict(
        {
            "request_id": numbers(rows.request_id),
            "session_id": numbers(rows.session_id, rows.session_id >= 0),
            "turn": numbers(rows.turn),
            "model": categories(np.zeros(len(rows), np.int32), [meta.model]),
            "arrived_at": floats(rows.arrived_at),
            "scheduled_at": floats(rows.scheduled_at),
            "first_token_at": floats(rows.first_token_at),
            "first_output_at": floats(rows.first_output_at),
            "finished_at": floats(rows.finished_at),
            "prompt_tokens": numbers(rows.prompt_tokens),
            "image_tokens": numbers(rows.image_tokens),
            "cached_tokens": numbers(rows.cached_tokens),
            "reasoning_tokens": numbers(rows.reasoning_tokens),
            "requested_output_tokens": numbers(rows.requested_output_tokens),
            "output_tokens": numbers(rows.output_tokens),
            "queue_ms": floats(rows.queue_s * MS_PER_S),
            "ttft_ms": floats(rows.ttft_s * MS_PER_S),
            "ttfo_ms": floats(rows.ttfo_s * MS_PER_S),
            "tpot_ms": floats(rows.tpot_s * MS_PER_S),
            "e2el_ms": floats(rows.e2el_s * MS_PER_S),
            "replica": numbers(rows.replica, rows.replica >= 0),
            "num_preemptions": numbers(rows.num_preemptions),
            "recomputed_tokens": numbers(rows.recomputed_tokens),
            "status": categories(rows.status, STATUS_NAMES),
            "reason": categories(rows.reason, reasons),
            "priority": numbers(rows.priority),
            "num_samples": numbers(rows.num_samples),
            "beam_width": numbers(rows.beam_width),
            "tenant": numbers(rows.tenant),
            "content": texts(rows.content),
            "slo_met": flags(rows.meets(meta.slo), decided & has_slo),
        }
    )


def _step_batch(rows: StepRows, meta: RunMeta) -> pa.RecordBatch:
    def count(field: str) -> pa.Array:
        return numbers(rows.count(field).astype(np.int32))

    columns = {
        "replica": count("replica"),
        "step": numbers(rows.step),
        "started_at": numbers(rows.started_at),
        "duration_ms": numbers(rows.duration_s * MS_PER_S),
        "num_prefill_tokens": count("num_prefill_tokens"),
        "num_prefill_chunks": count("num_prefill_chunks"),
        "num_decodes": count("num_decodes"),
        "sum_decode_context_tokens": numbers(rows.sum_decode_context),
        "num_padded_tokens": count("num_padded_tokens"),
        "num_sampled": count("num_sampled"),
        "num_running": count("num_running"),
        "num_waiting": count("num_waiting"),
        "num_preempted": numbers(rows.on_first("num_preempted").astype(np.int32)),
        "kv_blocks_used": numbers(rows.kv_blocks_used),
        "bound": categories(rows.runs.bound[rows.run], rows.runs.bounds),
        "is_extrapolated": flags(rows.runs.is_extrapolated[rows.run]),
    }
    for term, name in enumerate(meta.terms):
        columns[f"{name}_ms"] = numbers(rows.term_s(term) * MS_PER_S)
    return pa.RecordBatch.from_pydict(columns)


def _kv_batch(
    runs: StepRuns, totals: ReplicaTotals, ended_at: float, held: Holdings | None
) -> pa.RecordBatch:
    sampled_at, replica, num_blocks = _instants(ended_at), totals.replica, totals.num_kv_blocks
    rows = runs.expand(runs.of_replica(replica))
    tokens = None if held is None else (held.filled_at(sampled_at), held.held_at(sampled_at))
    if not len(rows):
        return _kv_columns(
            sampled_at, np.zeros(len(sampled_at), np.int64), replica, "hbm", num_blocks, tokens
        )
    step = np.searchsorted(rows.started_at, sampled_at, side="right") - 1
    is_running = (step >= 0) & (sampled_at < rows.ended_at[step])
    used = np.where(is_running, rows.kv_blocks_used[step], 0)
    return _kv_columns(sampled_at, used, replica, "hbm", num_blocks, tokens)


def _tier_batch(totals: TierTotals, ended_at: float) -> pa.RecordBatch:
    sampled_at = _instants(ended_at)
    used = content_at(totals, sampled_at)
    return _kv_columns(sampled_at, used, totals.owner, totals.tier, totals.capacity_blocks)


def _instants(ended_at: float) -> NDArray[np.float64]:
    interval = round_interval(ended_at / MAX_KV_SAMPLES)
    return interval * np.arange(int(ended_at / interval) + 1, dtype=np.float64)


def _kv_columns(
    sampled_at: NDArray[np.float64],
    used: NDArray[np.int64],
    replica: int | None,
    tier: str,
    num_blocks: int,
    tokens: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> pa.RecordBatch:
    size, place = len(used), TIER_NAMES.index(tier)
    owner = -1 if replica is None else replica
    filled, held = tokens or (np.full(size, np.nan), np.full(size, np.nan))
    return pa.RecordBatch.from_pydict(
        {
            "sampled_at": numbers(sampled_at),
            "replica": numbers(np.full(size, owner, np.int32), np.full(size, replica is not None)),
            "tier": categories(np.full(size, place), TIER_NAMES),
            "used_blocks": numbers(used),
            "free_blocks": numbers(num_blocks - used),
            "filled_tokens": floats(filled),
            "held_tokens": floats(held),
        }
    )


def round_interval(least_s: float) -> float:
    """Returns the shortest of 1, 2 or 5 times a power of ten [s] that is more than `least_s`."""
    decade = 10.0 ** ceil(log10(least_s)) / 10 if least_s > 0 else 1.0
    return next(decade * factor for factor in (1, 2, 5, 10, 20) if decade * factor > least_s)
