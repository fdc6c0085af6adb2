"""What a fleet cost and what broke, and how each tenant fared: parts of the summary."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..world.fleet_totals import FleetTotals
from ..world.recorder import Recorder, ReplicaTotals, Status
from .meta import RunMeta
from .metrics import ratio
from .rows import RequestRows

Summary = dict[str, Any]
_S_PER_HOUR = 3600.0


def fleet_summary(recorder: Recorder, meta: RunMeta, span_s: float) -> Summary:
    """Returns GPU-hours and their cost, what autoscalers did, and what faults did; None for neither."""
    fleet = recorder.fleet
    return {
        **_cost(fleet, meta, span_s),
        "scaling": None if fleet is None else _scaling(fleet, meta, recorder.ended_at),
        "faults": None if fleet is None or not fleet.has_faults else _faults(fleet),
    }


def lived_s(totals: ReplicaTotals, span_s: float) -> float:
    """Returns how long a replica was up, in a run of `span_s` [s]."""
    return span_s if totals.lived_s is None else totals.lived_s


def tenant_summary(rows: RequestRows, tenants: tuple[str, ...], meta: RunMeta) -> list[Summary]:
    """Returns how the requests of each tenant fared; empty without tenants."""
    result = []
    for number, name in enumerate(tenants):
        # As at the gate: who is beyond the list counts as the last.
        mine = np.minimum(rows.tenant, len(tenants) - 1) == number
        done = mine & rows.with_status(Status.FINISHED)
        ttft_ms = rows.ttft_s[done] * 1e3
        result.append(
            {
                "tenant": name,
                "requests": int(mine.sum()),
                "completed": int(done.sum()),
                "rejected": int((mine & rows.with_status(Status.REJECTED)).sum()),
                "total_tokens": int(rows.prompt_tokens.sum(where=done) + rows.output_tokens.sum(where=done)),
                "mean_ttft_ms": float(ttft_ms.mean()) if len(ttft_ms) else None,
                "p99_ttft_ms": float(np.percentile(ttft_ms, 99)) if len(ttft_ms) else None,
                "slo_met": int((mine & rows.meets(meta.slo)).sum()) if meta.slo.limits_s else None,
            }
        )
    return result


def _cost(fleet: FleetTotals | None, meta: RunMeta, span_s: float) -> Summary:
    gpu_hours, usd = 0.0, 0.0
    is_priced = True
    for number, pool in enumerate(meta.pools):
        replica_s = pool.num_replicas * span_s if fleet is None else fleet.paid_s[number]
        pool_hours = replica_s * pool.num_gpus_per_replica / _S_PER_HOUR
        gpu_hours += pool_hours
        if pool.usd_per_gpu_hour is None:
            is_priced = False
        else:
            usd += pool_hours * pool.usd_per_gpu_hour
    return {"gpu_hours": gpu_hours, "cost_usd": usd if is_priced else None}


def _scaling(fleet: FleetTotals, meta: RunMeta, ended_at: float) -> Summary:
    sizes = [size for size in fleet.sizes if size.at <= ended_at]
    pools = []
    for number, pool in enumerate(meta.pools):
        mine = [size for size in sizes if size.pool == number]
        pools.append(
            {
                "pool": pool.name,
                "max_serving": max((size.num_serving for size in mine), default=0),
                "mean_paid": ratio(fleet.paid_s[number], ended_at),
                # The last of several changes at one instant.
                "replicas": [list(at) for at in {size.at: (size.at, *size[2:]) for size in mine}.values()],
            }
        )
    return {"launched": fleet.num_launches, "drained": fleet.num_drained, "pools": pools}


def _faults(fleet: FleetTotals) -> Summary:
    return {
        "crashes": fleet.num_crashes,
        "slowed": fleet.num_slowed,
        "availability": fleet.availability,
        "lost_requests": fleet.num_lost,
        "retries": fleet.num_retries,
        "lost_tokens": fleet.lost_tokens,
    }
