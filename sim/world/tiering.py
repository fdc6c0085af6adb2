"""Tiers of one pool in a run: settings, wires and costs brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from ...hwmodels.step import Chunk, StepModel, StepShape
from ..deployment import Deployment
from ..policy.kv.blocks import KvCache
from ..policy.kv.layout_spec import PagedLayout
from ..policy.kv.tiers.build import TierHouse, TierSetup
from ..policy.kv.tiers.cache import TieredKvCache
from ..policy.kv.tiers.load_plan import LoadCost
from ..policy.kv.tiers.outages import outages
from ..policy.kv.tiers.rules import resolve
from ..policy.kv.tiers.tier import Tier
from ..policy.scheduler.vllm_v1 import VllmV1Spec
from ..pool import PoolConfig
from ..workload.streams import stream
from .clock import Clock
from .link import Link, Links
from .store_keeper import StoreKeeper
from .transfer import TierMover
from .wiring import Wiring


class PoolTiers:
    """The tiers of one pool's replicas, and what moves their KV. is_over(): no request is left."""

    def __init__(
        self,
        deployment: Deployment,
        clock: Clock,
        links: Links,
        *,
        seed: int,
        is_over: Callable[[], bool],
    ) -> None:
        config = deployment.config
        self._deployment = deployment
        self._clock = clock
        # SIMPLIFIED: what tensor-parallel ranks hold twice (MLA's latent) is moved twice, as by vLLM; effect:
        # none without MLA; SGLang moves it once.
        self.block_bytes = round(deployment.budget.block_bytes * deployment.num_gpus)
        hbm_bytes = deployment.num_kv_blocks * self.block_bytes
        self._specs, self._rules = resolve(config.kv.tier_policy, config.kv.tiers, hbm_bytes=hbm_bytes)
        self.wiring = Wiring(
            links,
            deployment.profile,
            self._specs,
            num_gpus=deployment.num_gpus,
            gpus_per_node=config.kv.gpus_per_node,
            num_layers=deployment.model.num_layers,
        )
        self.house = TierHouse(
            self._specs,
            block_size=config.kv.block_size,
            block_bytes=self.block_bytes,
            node_of=self.wiring.node_of,
            rng=stream(seed, f"tiers.{config.name}"),
        )
        self._links = links
        self._seed = seed
        self._is_over = is_over
        self._keepers: dict[Tier, StoreKeeper] = {}
        self._prefill_s = PrefillEstimate(deployment.step_model, config.scheduler.max_num_batched_tokens)

    @property
    def links(self) -> Sequence[Link]:
        """All links of the pool."""
        return tuple(self.wiring.links.values())

    def mover(self, replica: int) -> TierMover:
        """Returns what times a replica's moves."""
        return self.wiring.mover(replica)

    def setup(self, replica: int, mover: TierMover) -> TierSetup | None:
        """Returns what a replica's cache over tiers is made of; None without tiers."""
        if not self._specs:
            return None
        cost = LoadCost(self._prefill_s, lambda tier, num_bytes: mover.idle_s(tier, "hbm", num_bytes))
        clock = self._clock
        tiers = self.house.of_replica(replica, cost)
        self._keep_stores()
        return TierSetup(
            tiers=tiers,
            rules=self._rules,
            block_bytes=self.block_bytes,
            cost=cost,
            now=lambda: clock.now,
            can_set_aside=isinstance(self._deployment.config.scheduler, VllmV1Spec),
            seed=int(stream(self._seed, f"tiers.{self._deployment.config.name}.corrupt").integers(1 << 62)),
        )

    def _keep_stores(self) -> None:
        """Gives each store that was made its keeper."""
        for (name, _, owner), tier in self.house.tiers.items():
            if tier.spec.store is None or tier in self._keepers:
                continue
            rng = stream(self._seed, f"tiers.{self._deployment.config.name}.{name}.{owner}")
            self._keepers[tier] = StoreKeeper(
                self._links,
                tier,
                outages(tier.spec.store, rng),
                path=self.wiring.store_path(tier.spec, owner),
                block_bytes=self.block_bytes,
                is_over=self._is_over,
            )


def needs_mover(config: PoolConfig) -> bool:
    """Returns whether a pool's replicas may move KV: to tiers, to the host or inside HBM."""
    is_plain = isinstance(config.scheduler, VllmV1Spec) and isinstance(config.kv.layout, PagedLayout)
    return config.kv.has_tiers or not is_plain


def writes_back_from_hbm(kv: KvCache) -> bool:
    """Returns whether a step may have to wait for what HBM evicts, so that each must be decided in full."""
    return isinstance(kv, TieredKvCache) and kv.tiers[0].spec.write == "write_back"


class PrefillEstimate:
    """What a prompt's tokens take alone, in chunks of the token budget."""

    def __init__(self, step_model: StepModel, budget: int) -> None:
        self._step_model = step_model
        self._budget = budget
        self._chunk_s = lru_cache(maxsize=1 << 14)(self._predict)

    def __call__(self, num_tokens: int, context: int) -> float:
        """Returns the time to compute tokens behind a context [s]."""
        total_s = 0.0
        while num_tokens > 0:
            size = min(num_tokens, self._budget)
            total_s += self._chunk_s(size, context)
            num_tokens, context = num_tokens - size, context + size
        return total_s

    def _predict(self, num_tokens: int, context: int) -> float:
        shape = StepShape((Chunk(num_tokens, context, 1),), (), num_tokens, 1, False)
        return self._step_model.predict(shape).duration_s
