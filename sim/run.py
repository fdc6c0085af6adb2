"""A whole run on one page: scenario in, result out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ..errors import Problem, ScenarioError
from ..hwmodels.prices import shipped_prices
from ..version import __version__
from .deployment import Deployment, deploy_all
from .outcome.meta import KvLayout, PoolMeta, RunMeta, Slo
from .outcome.results import Result
from .policy.kv.layout_spec import ContiguousLayout
from .policy.router import make_router
from .replicas import front_end_times, make_replica, pool_size, replica_totals
from .scenario import Scenario, load_scenario, lock, sha256_of, with_python_pinned
from .workload.build import build_demand
from .workload.demand import Demand
from .workload.streams import stream
from .world.clock import Clock
from .world.engine import Engine, OnEnd
from .world.front_end import FrontEnd
from .world.link import Links
from .world.operations import Operations
from .world.recorder import Recorder
from .world.source import Source
from .world.tier_totals import link_totals, tier_totals
from .world.tiering import PoolTiers

OnProgress = Callable[[float, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scenario with everything checked and loaded: only time has to pass.

    lock_yaml: the scenario with everything resolved, as the output keeps it.
    """

    scenario: Scenario
    folder: Path
    deployments: tuple[Deployment, ...]
    demand: Demand
    lock_yaml: str


def simulate(
    scenario: Scenario | str | Path,
    *,
    base_dir: str | Path = ".",
    demand: Demand | None = None,
    on_progress: OnProgress | None = None,
    allow_python: bool = False,
) -> Result:
    """Runs a scenario to its end and returns what happened.

    scenario: a `Scenario`, the path of a file, or a shipped scenario's name. base_dir: what the paths in a
    `Scenario` object are relative to; a file's are relative to its own folder. demand: requests to play
    instead of the scenario's workload. on_progress(now_s, num_done) is called now and then. allow_python:
    schedulers of `kind: python` may run their code.
    Raises: SimllmError, before anything runs, if the scenario is invalid or infeasible.
    """
    folder = Path(base_dir)
    if not isinstance(scenario, Scenario):
        scenario, folder = load_scenario(scenario)
    return simulate_prepared(prepare(scenario, folder, demand, allow_python=allow_python), on_progress)


def prepare(
    scenario: Scenario, folder: Path, demand: Demand | None = None, *, allow_python: bool = False
) -> Prepared:
    """Loads models, devices and requests. Raises: SimllmError if anything is missing or does not fit."""
    scenario = with_python_pinned(scenario, folder, is_allowed=allow_python)
    deployments = deploy_all(scenario.pools, folder)
    if demand is None:
        demand = build_demand(scenario.workload, seed=scenario.seed, base_dir=folder)
    _check_beams(demand, deployments)
    return Prepared(scenario, folder, deployments, demand, lock(scenario, folder))


def _check_beams(demand: Demand, deployments: Sequence[Deployment]) -> None:
    """Raises: ScenarioError if requests search with beams and a pool's scheduler has none."""
    if demand.beam_width is None or not demand.beam_width.any():
        return
    for number, deployment in enumerate(deployments):
        scheduler = deployment.config.scheduler
        # A prefix cache has no beams to fork.
        if not scheduler.searches_beams or deployment.config.kv.enable_prefix_caching:
            what = "schedules no beam search: take vllm_v0 without prefix caching, or num_samples"
            raise ScenarioError([Problem(f"$.pools[{number}].scheduler.kind", what, scheduler.kind)])


def simulate_prepared(prepared: Prepared, on_progress: OnProgress | None = None) -> Result:
    """Runs a prepared scenario to its end and returns what happened."""
    started = perf_counter()
    recorder = play(prepared, on_progress)
    wall_s = perf_counter() - started
    return Result(recorder, prepared.demand, _meta(prepared, wall_s))


def play(prepared: Prepared, on_progress: OnProgress | None = None) -> Recorder:
    """Plays the requests on the deployed pools and returns the record."""
    scenario, deployments, demand = prepared.scenario, prepared.deployments, prepared.demand
    clock = Clock()
    recorder = Recorder(len(demand), record_steps=scenario.run.record_steps)
    # SIMPLIFIED: one front end, with the first pool's times, for all replicas; effect: none with one replica.
    front_end = FrontEnd(front_end_times(deployments[0].config.engine_overhead))
    source = Source(clock, demand, recorder=recorder, front_end=front_end)
    router = make_router(scenario.router, stream(scenario.seed, "router"))
    links = Links(clock)
    seed, is_over = scenario.seed, recorder.has_ended
    tiers = {
        pool.config.name: PoolTiers(pool, clock, links, seed=seed, is_over=is_over) for pool in deployments
    }

    def make_engine(replica: int, number: int, on_end: OnEnd) -> Engine:
        pool = deployments[number]
        return make_replica(
            clock, replica, pool, tiers[pool.config.name], scenario, recorder, on_end, front_end
        )

    operations = Operations(
        clock,
        recorder,
        router,
        pools=[pool_size(deployment) for deployment in deployments],
        make_engine=make_engine,
        on_end=_reporting(source.request_ended, on_progress),
        admission=scenario.admission,
        faults=scenario.faults,
        limits_s=Slo(**scenario.slo.model_dump()).limits_s,
        seed=scenario.seed,
    )
    source.start(operations.submit)
    with _no_garbage_collection():
        clock.run_to_end()
    ended_at = _ended_at(clock, recorder, deployments) if operations.ended_at is None else operations.ended_at
    recorder.ended_at = ended_at
    links.settle()
    recorder.links = link_totals([link for of_pool in tiers.values() for link in of_pool.links])
    _sum_up(recorder, operations, deployments)
    return recorder


def _sum_up(recorder: Recorder, operations: Operations, deployments: Sequence[Deployment]) -> None:
    """Leaves in the record what replicas, tiers and the fleet came to."""
    ended_at, engines = recorder.ended_at, operations.cluster.engines
    operations.close(ended_at)
    recorder.tiers = tier_totals(enumerate(engine.scheduler.kv for engine in engines), ended_at)
    pools = [deployments[operations.pool_of(engine.replica)] for engine in engines]
    recorder.replicas = [
        replica_totals(engine, pool, operations.lived_s(engine.replica, ended_at))
        for engine, pool in zip(engines, pools, strict=True)
    ]


def _ended_at(clock: Clock, recorder: Recorder, deployments: Sequence[Deployment]) -> float:
    """Returns when the run ended [s]: what tiers still do after the last answer is no part of it."""
    if not any(deployment.config.kv.has_tiers for deployment in deployments):
        return clock.now
    return max((at for at in recorder.finished_at if at == at), default=clock.now)


def _reporting(
    request_ended: Callable[[int, float], None], on_progress: OnProgress | None
) -> Callable[[int, float], None]:
    """Returns `request_ended`, reporting every 256th end to `on_progress` if there is one."""
    if on_progress is None:
        return request_ended
    num_done = 0

    def report(index: int, ended_at: float) -> None:
        nonlocal num_done
        num_done += 1
        if num_done % 256 == 0:
            on_progress(ended_at, num_done)
        request_ended(index, ended_at)

    return report


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spares the run the collector's walks: it makes millions of objects and hardly a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _meta(prepared: Prepared, wall_s: float) -> RunMeta:
    scenario, deployments, lock_yaml = prepared.scenario, prepared.deployments, prepared.lock_yaml
    profile = deployments[0].profile
    return RunMeta(
        scenario_name=scenario.name,
        scenario_sha256=sha256_of(lock_yaml),
        seed=scenario.seed,
        model=deployments[0].model.name,
        profile={"name": profile.name, "kind": profile.kind},
        pools=tuple(_pool_meta(deployment) for deployment in deployments),
        terms=deployments[0].step_model.terms,
        simllm_version=__version__,
        lock_yaml=lock_yaml,
        slo=Slo(**scenario.slo.model_dump()),
        tenants=() if scenario.admission is None else tuple(t.name for t in scenario.admission.tenants),
        kv_layouts={deployment.config.name: _kv_layout(deployment) for deployment in deployments},
        notes=(*prepared.demand.notes, *_accuracy_notes(deployments)),
        wall_s=wall_s,
    )


def _accuracy_notes(deployments: Sequence[Deployment]) -> Iterator[str]:
    """Yields what the user knows of the accuracy of each pool's quantised weights and KV cache."""
    for deployment in deployments:
        config = deployment.config
        for what, note in (("weights", config.accuracy_note), ("KV cache", config.kv.accuracy_note)):
            if note is not None:
                yield f"accuracy of pool {config.name}, {what}: {note}"


def _kv_layout(deployment: Deployment) -> KvLayout:
    layout = deployment.config.kv.layout
    if not isinstance(layout, ContiguousLayout):
        return KvLayout()
    return KvLayout(layout.reserve, layout.allocator == "buddy", deployment.max_model_len)


def _usd_per_gpu_hour(deployment: Deployment) -> float | None:
    given = deployment.config.price_per_gpu_hour
    shipped = shipped_prices().get(deployment.config.device) if given is None else None
    return given if shipped is None else shipped.usd_per_gpu_hour


def _pool_meta(deployment: Deployment) -> PoolMeta:
    device, num_gpus, config = deployment.profile.device, deployment.num_gpus, deployment.config
    peak = device.matrix_flops_per_s.get(deployment.precision.compute)
    return PoolMeta(
        name=config.name,
        device=device.name,
        num_replicas=config.replicas,
        num_gpus_per_replica=num_gpus,
        peak_flops_per_s=None if peak is None else peak * num_gpus,
        hbm_bytes_per_s=device.hbm_bytes_per_s * num_gpus,
        frontend_out_s=front_end_times(config.engine_overhead).way_out_s(1, 0, 0),
        usd_per_gpu_hour=_usd_per_gpu_hour(deployment),
    )
