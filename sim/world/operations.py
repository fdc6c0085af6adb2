"""What stands between the source and the engines: gate, cluster or fleet, faults, autoscalers.

Where a scenario asks for none of these it is the plain cluster alone, and a request passes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..policy.admission import AdmissionPolicy, AdmissionSpec
from ..policy.autoscaler import AutoscalerSpec
from ..policy.fault_plan import FaultSpec, RetrySpec, faults_of
from ..policy.router import Router
from ..request import Request
from ..workload.streams import stream
from .autoscaling import PoolScaler
from .clock import Clock
from .cluster import Cluster
from .faults import FaultInjector
from .fleet import Fleet, MakeEngine
from .gate import Gate
from .recorder import Recorder


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many replicas a pool has: at first, and by whose decision. load_s: weights onto GPUs [s]."""

    num_replicas: int
    autoscaler: AutoscalerSpec | None = None
    load_s: float = 0.0

    @property
    def num_places(self) -> int:
        """Replicas that there may be at once."""
        return self.num_replicas if self.autoscaler is None else self.autoscaler.max_replicas


class Operations:
    """Runs the replicas of all pools.

    make_engine(replica, pool, on_end): makes one. on_end(index, ended_at) is told of each request's end [s].
    limits_s: the SLO's, by metric [s].
    """

    def __init__(
        self,
        clock: Clock,
        recorder: Recorder,
        router: Router,
        *,
        pools: Sequence[PoolSize],
        make_engine: MakeEngine,
        on_end: Callable[[int, float], None],
        admission: AdmissionSpec | None = None,
        faults: FaultSpec | None = None,
        limits_s: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self._clock = clock
        self._recorder = recorder
        self._pools = pools
        self._faults = faults
        self._limits_s = limits_s or {}
        self._seed = seed
        self._client_hears = on_end
        self._num_ended = 0
        self._watchers: list[FaultInjector | PoolScaler] = []
        self.fleet: Fleet | None = None
        self.ended_at: float | None = None  # of the last request so far, where there is a fleet [s]
        self._autoscaled = frozenset(
            number for number, pool in enumerate(pools) if pool.autoscaler is not None
        )
        has_fleet = faults is not None or bool(self._autoscaled)
        hears = self._request_ended if has_fleet else on_end
        self._gate: Gate | None = None
        if admission is not None:
            self._gate = gate = Gate(clock, AdmissionPolicy(admission), recorder.refused, hears)
            hears = gate.request_ended
        if has_fleet:
            self.cluster: Cluster = self._make_fleet(router, make_engine, hears)
        else:
            self.cluster = Cluster(clock, router, hears, recorder.refused)
            self._pool_of = [number for number, pool in enumerate(pools) for _ in range(pool.num_replicas)]
            for replica, number in enumerate(self._pool_of):
                self.cluster.add(make_engine(replica, number, self.cluster.request_ended))
        if self._gate is not None and admission is not None:
            self._lead(self._gate, admission.max_outstanding_per_replica)

    @property
    def submit(self) -> Callable[[Request], None]:
        """What takes in a request: the gate if there is one."""
        return self.cluster.submit if self._gate is None else self._gate.submit

    def pool_of(self, replica: int) -> int:
        """Returns the pool of a replica."""
        if self.fleet is not None:
            return self.fleet.place_of[replica].pool
        return self._pool_of[replica]

    def lived_s(self, replica: int, ended_at: float) -> float | None:
        """Returns how long a replica was up by the end of the run [s]; None for all of it."""
        if self.fleet is None:
            return None
        began_at, gone_at = self.fleet.totals.lives[replica]
        return max(min(gone_at, ended_at) - began_at, 0.0)

    def close(self, ended_at: float) -> None:
        """Leaves in the recorder what became of the fleet, if there is one."""
        if self.fleet is None:
            return
        self.fleet.close(ended_at)
        totals = self._recorder.fleet = self.fleet.totals
        totals.has_faults = self._faults is not None

    def _lead(self, gate: Gate, most: int | None) -> None:
        """Lets the gate lead to the cluster, `most` requests at a time for each replica that serves."""
        serving = self.cluster.serving
        gate.lead_to(self.cluster.submit, lambda: None if most is None else most * max(len(serving), 1))

    def _make_fleet(
        self, router: Router, make_engine: MakeEngine, on_end: Callable[[int, float], None]
    ) -> Fleet:
        """Starts the first replicas, and what will change them."""
        pools, faults, clock = self._pools, self._faults, self._clock
        self.fleet = fleet = Fleet(
            clock,
            router,
            recorder=self._recorder,
            on_end=on_end,
            on_room=_nothing if self._gate is None else self._gate.open_soon,
            has_ended=self._has_ended,
            make_engine=make_engine,
            pools=[number for number, pool in enumerate(pools) for _ in range(pool.num_places)],
            autoscaled=self._autoscaled,
            retry=RetrySpec() if faults is None else faults.retry,
        )
        first = 0
        for number, pool in enumerate(pools):
            for place in fleet.places[first : first + pool.num_replicas]:
                fleet.serve(place)
            first += pool.num_places
            if pool.autoscaler is not None:
                self._watchers.append(self._scaler(fleet, number, pool.autoscaler, pool.load_s))
        if faults is not None:
            num_places = len(fleet.places)
            names = [f"faults.{kind}.{place}" for place in range(num_places) for kind in ("crash", "slow")]
            plan = faults_of(faults, num_places, [stream(self._seed, name) for name in names])
            self._watchers.append(FaultInjector(clock, fleet, plan, self._is_over))
        for watcher in self._watchers:
            watcher.start()
        return fleet

    def _scaler(self, fleet: Fleet, number: int, spec: AutoscalerSpec, load_s: float) -> PoolScaler:
        return PoolScaler(
            self._clock,
            fleet,
            self._recorder,
            spec,
            pool=number,
            ready_s=spec.provision_s + load_s + spec.start_s,
            limits_s=self._limits_s,
            is_over=self._is_over,
        )

    def _request_ended(self, index: int, ended_at: float) -> None:
        self._num_ended += 1
        self.ended_at = ended_at if self.ended_at is None else max(ended_at, self.ended_at)
        self._client_hears(index, ended_at)

    def _has_ended(self) -> bool:
        """Returns whether all requests have ended."""
        return self._num_ended + self._recorder.num_unsent == self._recorder.num_requests

    def _is_over(self) -> bool:
        """Returns whether watching is over: all requests have ended, or nothing could end one any more."""
        assert self.fleet is not None, "only a fleet is watched"
        num_watching = sum(watcher.is_set for watcher in self._watchers)
        is_stuck = self._clock.num_set <= num_watching and not self.fleet.num_homeless
        return is_stuck or self._has_ended()


def _nothing() -> None:
    """What happens where nobody waits at a gate."""
