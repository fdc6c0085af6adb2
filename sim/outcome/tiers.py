"""Tiers and links in the summary, and their content over time for the KV table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..policy.kv.tiers.copies import StoreCopies
from ..policy.kv.tiers.failures import CAUSES
from ..world.recorder import Recorder
from ..world.tier_totals import LinkTotals, TierTotals
from .metrics import ratio

TIER_NAMES = ("hbm", "dram", "nvme", "remote")


def tier_summary(recorder: Recorder, span_s: float) -> dict[str, Any]:
    """Returns `kv_tiers` and `links`; empty lists without tiers."""
    return {
        "kv_tiers": [_tier(totals) for totals in sorted(recorder.tiers, key=_place)],
        "links": [_link(totals, span_s) for totals in recorder.links],
    }


def content_at(totals: TierTotals, sampled_at: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the blocks in a tier at each instant."""
    used_at = np.frombuffer(totals.used_at, np.float64)
    used = np.frombuffer(totals.used_blocks, np.int64)
    result: NDArray[np.int64] = used[np.searchsorted(used_at, sampled_at, side="right") - 1]
    return result


def _place(totals: TierTotals) -> tuple[int, int]:
    return TIER_NAMES.index(totals.tier), min(totals.replicas)


def _tier(totals: TierTotals) -> dict[str, Any]:
    used = np.frombuffer(totals.used_blocks, np.int64)
    traffic = totals.replicas.values()
    return {
        "tier": totals.tier,
        "sharing": totals.sharing,
        "replicas": sorted(totals.replicas),
        "num_blocks": totals.capacity_blocks,
        "block_size": totals.block_size,
        "max_used_blocks": int(used.max()),
        "inserted_blocks": totals.num_inserted,
        "evicted_blocks": totals.num_evicted,
        "hit_tokens": sum(one.hit_tokens for one in traffic),
        "loaded_tokens": sum(one.loaded_tokens for one in traffic),
        "recomputed_tokens": sum(one.recomputed_tokens for one in traffic),
        "prefetched_tokens": sum(one.prefetched_tokens for one in traffic),
        "read_bytes": sum(one.read_bytes for one in traffic),
        "written_bytes": sum(one.written_bytes for one in traffic),
        "usd": totals.usd,
        "store": None if totals.copies is None else _store(totals, totals.copies),
    }


def _store(totals: TierTotals, copies: StoreCopies) -> dict[str, Any]:
    """Returns what the nodes of a store did, and what their failures cost."""
    traffic = totals.replicas.values()
    return {
        "lost_blocks": totals.num_lost,
        "refused_writes": copies.num_refused,
        "copies_in": copies.num_in,
        "copies_evicted": copies.num_evicted,
        "copies_lost": copies.num_lost,
        "rebuilt_bytes": copies.num_rebuilt * totals.block_bytes,
        "replicated_bytes": copies.num_replicated * totals.block_bytes,
        "stale_hits": sum(one.stale_hits for one in traffic),
        "checksum_failures": sum(one.checksum_failures for one in traffic),
        "recomputed_tokens": {
            cause: sum(one.recomputed_by.get(cause, 0) for one in traffic) for cause in CAUSES
        },
    }


def _link(totals: LinkTotals, span_s: float) -> dict[str, Any]:
    return {
        "link": totals.name,
        "bytes_per_s": totals.bytes_per_s,
        "num_bytes": round(totals.num_bytes),
        "busy_share": ratio(totals.busy_s, span_s),
        "utilisation": ratio(totals.num_bytes, totals.bytes_per_s * span_s),
    }
