"""What the tiers and links of a run did, as sums for the summary and content over time for the KV table."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..policy.kv.tiers.cache import TieredKvCache
from ..policy.kv.tiers.copies import StoreCopies
from ..policy.kv.tiers.job import TierTraffic
from ..policy.kv.tiers.tier import Tier
from .link import Link


@dataclass(frozen=True, slots=True)
class TierTotals:
    """Sums over the life of one tier, which replicas may share.

    replicas: the traffic of each replica that uses it. used_at, used_blocks: its content, an item for each
    change [s, blocks]. usd: what keeping its capacity has cost. copies: of a store, what its nodes did.
    block_bytes: one copy of a block [B].
    """

    tier: str
    sharing: str
    replicas: dict[int, TierTraffic]
    capacity_blocks: int
    block_size: int
    num_inserted: int
    num_evicted: int
    used_at: array[float]
    used_blocks: array[int]
    usd: float
    block_bytes: int = 0
    num_lost: int = 0
    copies: StoreCopies | None = None

    @property
    def owner(self) -> int | None:
        """The replica that has it for itself, None if it is shared."""
        return next(iter(self.replicas)) if self.sharing == "replica" else None


@dataclass(frozen=True, slots=True)
class LinkTotals:
    """One link: its rate [B/s], what it carried [B], and the time with something on it [s]."""

    name: str
    bytes_per_s: float
    num_bytes: float
    busy_s: float


def tier_totals(caches: Iterable[tuple[int, object]], ended_at: float) -> list[TierTotals]:
    """Returns the totals of all tiers under the caches, given with their replicas; a shared one once."""
    found: dict[Tier, TierTotals] = {}
    for replica, kv in caches:
        if not isinstance(kv, TieredKvCache):
            continue
        for tier in kv.tiers:
            if tier not in found:
                found[tier] = _totals(tier, kv.block_size, kv.block_bytes, ended_at)
            found[tier].replicas[replica] = kv.traffic[tier.name]
    return list(found.values())


def link_totals(links: Sequence[Link]) -> list[LinkTotals]:
    """Returns the totals of the links that carried anything."""
    return [
        LinkTotals(link.name, link.bytes_per_s, link.num_bytes, link.busy_s)
        for link in links
        if link.num_bytes
    ]


def _totals(tier: Tier, block_size: int, block_bytes: int, ended_at: float) -> TierTotals:
    store = tier.store
    return TierTotals(
        tier=tier.name,
        sharing=tier.figures.sharing,
        replicas={},
        capacity_blocks=tier.most_blocks,
        block_size=block_size,
        num_inserted=store.num_inserted,
        num_evicted=store.num_evicted,
        used_at=tier.used_at,
        used_blocks=tier.used_blocks,
        usd=tier.usd(ended_at),
        block_bytes=block_bytes,
        num_lost=store.num_lost,
        copies=store.copies,
    )
