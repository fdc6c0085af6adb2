"""Builds the tiers of a pool: what replicas share is built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .....units import GIB
from ..blocks import KvCache
from ..prefix import PrefixKvCache, PrefixNode
from ..radix import RadixKvCache
from ..radix_tree import RadixNode
from .cache import TieredKvCache
from .copies import StoreCopies
from .eviction.build import make_eviction
from .load_plan import LoadCost
from .rules import TierRules
from .spec import TierSpec
from .store import TierStore
from .tier import Tier


@dataclass(frozen=True, slots=True)
class TierSetup:
    """What one replica's cache over tiers is made of; see `TieredKvCache`. seed: of corrupt blocks."""

    tiers: Sequence[Tier]
    rules: TierRules
    block_bytes: int
    cost: LoadCost
    now: Callable[[], float]
    can_set_aside: bool
    seed: int = 0

    def over(self, inner: KvCache) -> TieredKvCache:
        """Returns the cache of HBM with the tiers under it."""
        cache = TieredKvCache(
            inner,
            self.tiers,
            self.rules,
            block_bytes=self.block_bytes,
            cost=self.cost,
            now=self.now,
            can_set_aside=self.can_set_aside,
            seed=self.seed,
        )
        if self.tiers[0].spec.write == "write_back":
            if isinstance(inner, PrefixKvCache):
                inner.on_evict = partial(_write_back, cache)
            elif isinstance(inner, RadixKvCache):
                inner.tree.on_evict = partial(_write_leaf_back, cache)
        return cache


class TierHouse:
    """The tiers of one pool, by the replicas, nodes or the whole that they belong to.

    node_of(replica): where a replica runs. rng: for policies that draw.
    """

    def __init__(
        self,
        specs: Sequence[TierSpec],
        *,
        block_size: int,
        block_bytes: int,
        node_of: Callable[[int], int],
        rng: np.random.Generator,
    ) -> None:
        self._specs = specs
        self._block_size = block_size
        self._block_bytes = block_bytes
        self._node_of = node_of
        self._rng = rng
        self._tiers: dict[tuple[str, str, int], Tier] = {}

    @property
    def tiers(self) -> dict[tuple[str, str, int], Tier]:
        """All tiers made so far, by name, sharing and the number of the replica or node (0: the whole)."""
        return self._tiers

    def of_replica(self, replica: int, cost: LoadCost) -> list[Tier]:
        """Returns the tiers that a replica uses, from the fastest."""
        return [self._tier(spec, replica, cost) for spec in self._specs]

    def _tier(self, spec: TierSpec, replica: int, cost: LoadCost) -> Tier:
        num_copies = 1 if spec.store is None else spec.store.replication
        capacity = int(spec.capacity_gib * GIB / (self._block_bytes * num_copies))

        def saved_s(context_blocks: int, num_blocks: int) -> float:
            size = self._block_size
            load_s = cost.load_s(spec.tier, num_blocks * self._block_bytes)
            return cost.prefill_s(num_blocks * size, context_blocks * size) - load_s

        eviction = make_eviction(spec.eviction, capacity_blocks=capacity, rng=self._rng, saved_s=saved_s)
        copies = None if spec.store is None else StoreCopies(spec.store)
        store = TierStore(spec.tier, capacity, eviction, copies)
        tier = Tier(spec, store, block_bytes=self._block_bytes * num_copies)
        sharing = tier.figures.sharing
        owner = {"replica": replica, "node": self._node_of(replica), "global": 0}[sharing]
        return self._tiers.setdefault((spec.tier, sharing, owner), tier)


def _write_back(cache: TieredKvCache, node: PrefixNode, num_blocks: int) -> None:
    """Tells the cache which blocks HBM is about to lose: the last ones of a run."""
    runs: list[tuple[object, int]] = []
    above: PrefixNode | None = node
    while above is not None and above.parent is not None:
        runs.append((above.key, above.num_blocks))
        above = above.parent
    end = sum(size for _, size in runs)
    cache.evicted(tuple(reversed(runs)), (end - num_blocks, end))


def _write_leaf_back(cache: TieredKvCache, node: RadixNode) -> None:
    """Tells the cache that a radix tree is about to lose a leaf."""
    runs: list[tuple[object, int]] = []
    above: RadixNode | None = node
    while above is not None:
        runs[:0] = above.runs
        above = above.parent
    end = sum(size for _, size in runs)
    cache.evicted(tuple(runs), (end - node.num_blocks, end))
