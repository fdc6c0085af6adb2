"""Tiers on toy wires, for engines of `harness.play`: a block of 4 tokens takes a given time to move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from harness import BLOCK_BYTES, MakeTiers

from simllm.sim.policy.kv.blocks import KvCache
from simllm.sim.policy.kv.tiers.build import TierHouse, TierSetup
from simllm.sim.policy.kv.tiers.cache import TieredKvCache
from simllm.sim.policy.kv.tiers.load_plan import LoadCost
from simllm.sim.policy.kv.tiers.outages import outages
from simllm.sim.policy.kv.tiers.rules import TierRules
from simllm.sim.policy.kv.tiers.spec import TierSpec
from simllm.sim.policy.kv.tiers.tier import Tier
from simllm.sim.world.clock import Clock
from simllm.sim.world.link import Link, Links
from simllm.sim.world.store_keeper import StoreKeeper
from simllm.sim.world.transfer import Route, TierMover

GIB_PER_BLOCK = BLOCK_BYTES / 2**30
TIERS = ("hbm", "dram", "nvme", "remote")


def tier(name: str, num_blocks: int, **how: object) -> TierSpec:
    """A tier of so many blocks."""
    return TierSpec.model_validate({"tier": name, "capacity_gib": num_blocks * GIB_PER_BLOCK, **how})


class Tiered:
    """Makes the caches and movers of a run. copy_s: a block between HBM and the host; below, ten times that.

    prefill_s: what a load-or-recompute decision takes a token to cost [s].
    """

    def __init__(
        self, specs: Sequence[TierSpec], rules: TierRules, *, copy_s: float = 0.001, prefill_s: float = 0.01
    ) -> None:
        self._specs, self._rules = specs, rules
        self._copy_s, self._prefill_s = copy_s, prefill_s
        self._house: TierHouse | None = None
        self.caches: list[TieredKvCache] = []
        self.movers: list[TierMover] = []
        self.keepers: dict[Tier, StoreKeeper] = {}

    def make(self, clock: Clock, replica: int, inner: KvCache) -> tuple[KvCache, TierMover]:
        """Returns a replica's cache over tiers, and its mover; as `harness.play` asks."""
        if self._house is None:
            self._house = TierHouse(
                self._specs,
                block_size=inner.block_size,
                block_bytes=BLOCK_BYTES,
                node_of=lambda replica: replica,
                rng=np.random.default_rng(0),
            )
        mover = self._mover(clock)
        cost = LoadCost(
            lambda num_tokens, context: num_tokens * self._prefill_s,
            lambda name, num_bytes: mover.idle_s(name, "hbm", num_bytes),
        )
        setup = TierSetup(
            self._house.of_replica(replica, cost), self._rules, BLOCK_BYTES, cost, lambda: clock.now, True
        )
        self._keep_stores(clock, self._house)
        self.caches.append(setup.over(inner))
        self.movers.append(mover)
        return self.caches[-1], mover

    def _keep_stores(self, clock: Clock, house: TierHouse) -> None:
        """Lets happen to stores what is scheduled; their nodes copy a block as fast as others load it."""
        for tier in house.tiers.values():
            if tier.spec.store is not None and tier not in self.keepers:
                self.keepers[tier] = StoreKeeper(
                    Links(clock),
                    tier,
                    outages(tier.spec.store, np.random.default_rng(0)),
                    path=(Link("rebuild", BLOCK_BYTES / (10 * self._copy_s)),),
                    block_bytes=BLOCK_BYTES,
                    is_over=lambda: False,
                )

    def _mover(self, clock: Clock) -> TierMover:
        routes = {}
        for source in TIERS:
            for target in TIERS:
                is_pcie = {source, target} <= {"hbm", "dram"}
                block_s = self._copy_s * (1 if is_pcie else 10)
                routes[source, target] = Route((Link(f"{source}-{target}", BLOCK_BYTES / block_s),))
        return TierMover(Links(clock), routes, num_layers=2)


def as_make_tiers(tiered: Tiered) -> MakeTiers:
    """Returns what `harness.play` takes."""
    return tiered.make
