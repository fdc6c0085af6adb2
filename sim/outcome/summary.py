"""The summary of a run: one flat record of scalars, `vllm bench serve`'s keys first, then simllm's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from ...units import MS_PER_S
from ..world.recorder import Recorder, ReplicaTotals, Status
from .definitions import DEFINITIONS
from .fleet import fleet_summary, lived_s, tenant_summary
from .kv_waste import kv_waste
from .meta import PoolMeta, RunMeta
from .metrics import gap_scalars, latency_scalars, max_concurrent, max_tokens_per_s, ratio
from .rows import Flags, Ints, RequestRows
from .sessions import session_summary
from .steps import StepRuns
from .tiers import tier_summary

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
        "sessions": session_summary(rows),
        **_utilisation(recorder, meta, span_s),
        "kv": [_kv(totals, runs) for totals in recorder.replicas],
        **tier_summary(recorder, span_s),
        **fleet_summary(recorder, meta, span_s),
        "tenants": tenant_summary(rows, meta.tenants, meta),
        "kv_waste": kv_waste(rows, runs, meta.kv_layouts, recorder.replicas),
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
    num_reasoning = _total(rows.num_reasoning_tokens, done)
    goodput = ratio(int(rows.meets(meta.slo).sum()), duration_s) if meta.slo.limits_s else None
    return {
        "duration": duration_s if num_done else None,
        "completed": num_done,
        "failed": len(rows) - num_done,
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "total_reasoning_tokens": num_reasoning,
        "total_answer_tokens": num_output - num_reasoning,
        "request_throughput": ratio(num_done, duration_s),
        "request_goodput": goodput,
        "output_throughput": ratio(num_output, duration_s),
        "total_token_throughput": ratio(num_input + num_output, duration_s),
        "reasoning_throughput": ratio(num_reasoning, duration_s),
        "answer_throughput": ratio(num_output - num_reasoning, duration_s),
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
    was_rejected, has_failed = rows.with_status(Status.REJECTED), rows.with_status(Status.FAILED)
    is_truncated = done & (rows.output_tokens < rows.requested_output_tokens * rows.num_sequences)
    num_rejected, num_given_up = int(was_rejected.sum()), int(has_failed.sum())
    return {
        "rejected": num_rejected,
        # Engines turn away what they could never serve, whatever the load; gates and routers the rest.
        "unservable": int((was_rejected & (rows.replica >= 0)).sum()),
        "rejections": _reasons(recorder, was_rejected),
        "given_up": num_given_up,
        "failures": _reasons(recorder, has_failed),
        "unfinished": len(rows) - int(done.sum()) - num_rejected - num_given_up,
        "truncated": int(is_truncated.sum()),
        "preempted": int((rows.num_preemptions > 0).sum()),
        "num_preemptions": int(rows.num_preemptions.sum()),
        "recomputed_tokens": _total(rows.recomputed_tokens, done),
        "cached_tokens": _total(rows.cached_tokens, done),
    }


def _reasons(recorder: Recorder, rows: Flags) -> dict[str, int]:
    counted = Counter(reason for row, reason in recorder.reasons.items() if rows[row])
    return dict(sorted(counted.items()))


def _utilisation(recorder: Recorder, meta: RunMeta, span_s: float) -> Summary:
    replicas = recorder.replicas
    pools = {pool.name: pool for pool in meta.pools}
    shares = [_replica(totals, pools[totals.pool], span_s) for totals in replicas]
    up_s = sum(lived_s(totals, span_s) for totals in replicas)
    terms = {term: sum(totals.term_s[term] for totals in replicas) for term in meta.terms}
    num_queried = sum(totals.prefix_query_tokens for totals in replicas)
    return {
        "span_s": span_s,
        "extrapolated_steps": sum(totals.num_extrapolated_steps for totals in replicas),
        "mfu": _utilised([(t.flops, pools[t.pool].peak_flops_per_s, lived_s(t, span_s)) for t in replicas]),
        "mbu": _utilised(
            [(t.hbm_bytes, pools[t.pool].hbm_bytes_per_s, lived_s(t, span_s)) for t in replicas]
        ),
        "busy_share": ratio(sum(totals.busy_s for totals in replicas), up_s),
        "term_share": {term: ratio(seconds, up_s) for term, seconds in terms.items()},
        "bubble_share": _bubble_share(replicas),
        "prefix_cache_hit_rate": ratio(_num_hit_tokens(recorder), num_queried),
        "replicas": shares,
    }


def _bubble_share(replicas: list[ReplicaTotals]) -> float | None:
    staged = [totals for totals in replicas if totals.bubble_share is not None]
    idle_s = sum(totals.num_stages * totals.busy_s * (totals.bubble_share or 0.0) for totals in staged)
    return ratio(idle_s, sum(totals.num_stages * totals.busy_s for totals in staged))


def _num_hit_tokens(recorder: Recorder) -> int:
    in_tiers = (one.hit_tokens for totals in recorder.tiers for one in totals.replicas.values())
    return sum(totals.prefix_hit_tokens for totals in recorder.replicas) + sum(in_tiers)


def _replica(totals: ReplicaTotals, pool: PoolMeta, span_s: float) -> Summary:
    span_s = lived_s(totals, span_s)
    return {
        "replica": totals.replica,
        "pool": totals.pool,
        "num_steps": totals.num_steps,
        "max_running": totals.max_running,
        "busy_share": ratio(totals.busy_s, span_s),
        "term_share": {term: ratio(seconds, span_s) for term, seconds in totals.term_s.items()},
        "mfu": _utilised([(totals.flops, pool.peak_flops_per_s, span_s)]),
        "mbu": _utilised([(totals.hbm_bytes, pool.hbm_bytes_per_s, span_s)]),
    }


def _utilised(work: list[tuple[float, float | None, float]]) -> float | None:
    """Returns the work done over the work possible at each peak and time; None if a peak is unknown."""
    possible = [peak * up_s for _, peak, up_s in work if peak is not None]
    if len(possible) < len(work):
        return None
    return ratio(sum(done for done, _, _ in work), sum(possible))


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
