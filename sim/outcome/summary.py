"""The summary of a run: one flat record of scalars, `vllm bench serve`'s keys first, then simllm's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from ...units import MS_PER_S
from ..world.recorder import Recorder, ReplicaTotals, Status
from .definitions import DEFINITIONS
from .meta import PoolMeta, RunMeta
from .metrics import gap_scalars, latency_scalars, max_concurrent, max_tokens_per_s, ratio
from .rows import Flags, Ints, RequestRows
from .steps import StepRuns

SCHEMA_VERSION = 1
"""Raised whenever a key of the summary or a column of a table changes its name or meaning."""

Summary = dict[str, Any]


def summarise(recorder: Recorder, rows: RequestRows, runs: StepRuns | None, meta: RunMeta) -> Summary:
    """Returns the summary as plain values; None for what is unknown or undefined, never nan."""
    done = rows.with_status(Status.FINISHED)
    arrived_at, finished_at = rows.arrived_at[done], rows.finished_at[done]
    first_arrival = float(np.nanmin(rows.arrived_at)) if np.isfinite(rows.arrived_at).any() else 0.0
    last_finish = float(finished_at.max(initial=first_arrival))
    span_s = max(recorder.ended_at, last_finish) - first_arrival
    tpot = latency_scalars("tpot", rows.tpot_s[done])
    return {
        **_head(meta),
        **_throughput(rows, done, last_finish - first_arrival, meta),
        "max_output_tokens_per_s": _peak_tokens(recorder, runs, meta, first_arrival),
        "max_concurrent_requests": max_concurrent(arrived_at, finished_at),
        **latency_scalars("ttft", rows.ttft_s[done]),
        **tpot,
        **gap_scalars("itl", recorder.gaps),
        **latency_scalars("e2el", rows.e2el_s[done]),
        **latency_scalars("ttfo", rows.ttfo_s[done]),
        **latency_scalars("queue", rows.queue_s[done]),
        "output_tokens_per_s_per_user": ratio(MS_PER_S, tpot["mean_tpot_ms"]),
        **_counts(rows, done, recorder),
        **_utilisation(recorder.replicas, meta, span_s),
        "kv": [_kv(totals, runs) for totals in recorder.replicas],
        "definitions": dict(DEFINITIONS),
        "notes": list(meta.notes),
    }


def _head(meta: RunMeta) -> Summary:
    return {
        "schema_version": SCHEMA_VERSION,
        "simllm_version": meta.simllm_version,
        "scenario_name": meta.scenario_name,
        "scenario_sha256": meta.scenario_sha256,
        "seed": meta.seed,
        "model": meta.model,
        "profile": dict(meta.profile),
        "pools": [asdict(pool) for pool in meta.pools],
        "slo": asdict(meta.slo) if meta.slo.limits_s else None,
    }


def _throughput(rows: RequestRows, done: Flags, duration_s: float, meta: RunMeta) -> Summary:
    num_done = int(done.sum())
    num_input, num_output = _total(rows.prompt_tokens, done), _total(rows.output_tokens, done)
    goodput = ratio(int(rows.meets(meta.slo).sum()), duration_s) if meta.slo.limits_s else None
    return {
        "duration": duration_s if num_done else None,
        "completed": num_done,
        "failed": len(rows) - num_done,
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": ratio(num_done, duration_s),
        "request_goodput": goodput,
        "output_throughput": ratio(num_output, duration_s),
        "total_token_throughput": ratio(num_input + num_output, duration_s),
    }


def _total(column: Ints, rows: Flags) -> int:
    return int(column.sum(where=rows))


def _peak_tokens(
    recorder: Recorder, runs: StepRuns | None, meta: RunMeta, first_arrival: float
) -> float | None:
    if runs is None:
        return None
    pools = {pool.name: pool for pool in meta.pools}
    delays = {totals.replica: pools[totals.pool].frontend_out_s for totals in recorder.replicas}
    return max_tokens_per_s(runs, delays, since=first_arrival)


def _counts(rows: RequestRows, done: Flags, recorder: Recorder) -> Summary:
    reasons = Counter(recorder.reasons.values())
    is_truncated = done & (rows.output_tokens < rows.requested_output_tokens)
    num_rejected = int(rows.with_status(Status.REJECTED).sum())
    return {
        "rejected": num_rejected,
        # Engines turn away only what they could never serve (`Scheduler.refusal`), whatever the load.
        "unservable": num_rejected,
        "rejections": dict(sorted(reasons.items())),
        "unfinished": len(rows) - int(done.sum()) - num_rejected,
        "truncated": int(is_truncated.sum()),
        "preempted": int((rows.num_preemptions > 0).sum()),
        "num_preemptions": int(rows.num_preemptions.sum()),
        "recomputed_tokens": _total(rows.recomputed_tokens, done),
        "cached_tokens": _total(rows.cached_tokens, done),
    }


def _utilisation(replicas: list[ReplicaTotals], meta: RunMeta, span_s: float) -> Summary:
    pools = {pool.name: pool for pool in meta.pools}
    shares = [_replica(totals, pools[totals.pool], span_s) for totals in replicas]
    num_replicas = len(replicas)
    terms = {term: sum(totals.term_s[term] for totals in replicas) for term in meta.terms}
    num_queried = sum(totals.prefix_query_tokens for totals in replicas)
    return {
        "span_s": span_s,
        "extrapolated_steps": sum(totals.num_extrapolated_steps for totals in replicas),
        "mfu": _utilised([(t.flops, pools[t.pool].peak_flops_per_s) for t in replicas], span_s),
        "mbu": _utilised([(t.hbm_bytes, pools[t.pool].hbm_bytes_per_s) for t in replicas], span_s),
        "busy_share": ratio(sum(totals.busy_s for totals in replicas), span_s * num_replicas),
        "term_share": {term: ratio(seconds, span_s * num_replicas) for term, seconds in terms.items()},
        "prefix_cache_hit_rate": ratio(sum(totals.prefix_hit_tokens for totals in replicas), num_queried),
        "replicas": shares,
    }


def _replica(totals: ReplicaTotals, pool: PoolMeta, span_s: float) -> Summary:
    return {
        "replica": totals.replica,
        "pool": totals.pool,
        "num_steps": totals.num_steps,
        "max_running": totals.max_running,
        "busy_share": ratio(totals.busy_s, span_s),
        "term_share": {term: ratio(seconds, span_s) for term, seconds in totals.term_s.items()},
        "mfu": _utilised([(totals.flops, pool.peak_flops_per_s)], span_s),
        "mbu": _utilised([(totals.hbm_bytes, pool.hbm_bytes_per_s)], span_s),
    }


def _utilised(work: list[tuple[float, float | None]], span_s: float) -> float | None:
    """Returns the work done over the work possible in `span_s`; None if a peak is unknown."""
    peaks = [peak for _, peak in work if peak is not None]
    if len(peaks) < len(work):
        return None
    return ratio(sum(done for done, _ in work), sum(peaks) * span_s)


def _kv(totals: ReplicaTotals, runs: StepRuns | None) -> Summary:
    used = None if runs is None else runs.max_kv_blocks_used(runs.of_replica(totals.replica))
    return {
        "replica": totals.replica,
        "tier": "hbm",
        "num_blocks": totals.num_kv_blocks,
        "block_size": totals.block_size,
        "max_used_blocks": used,
        "prefix_query_tokens": totals.prefix_query_tokens,
        "prefix_hit_tokens": totals.prefix_hit_tokens,
        "prefix_misses": dict(totals.prefix_misses),
    }
