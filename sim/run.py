"""A whole run on one page: scenario in, result out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter

from ..hwmodels.execution import Execution
from ..version import __version__
from .deployment import Deployment, deploy_all
from .outcome.meta import PoolMeta, RunMeta, Slo
from .outcome.results import Result
from .policy.kv.blocks import KvCache
from .policy.kv.plain import PlainKvCache
from .policy.kv.prefix import PrefixKvCache
from .policy.router import make_router
from .policy.scheduler import make_scheduler
from .pool import EngineOverheadConfig
from .scenario import Scenario, load_scenario, lock, sha256_of
from .workload.build import build_demand
from .workload.demand import Demand
from .workload.streams import stream
from .world.clock import Clock
from .world.cluster import Cluster
from .world.engine import Engine, OnEnd
from .world.front_end import FrontEnd, FrontEndTimes
from .world.recorder import Recorder, ReplicaTotals
from .world.source import Source

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
) -> Result:
    """Runs a scenario to its end and returns what happened.

    scenario: a `Scenario`, the path of a file, or a shipped scenario's name. base_dir: what the paths in a
    `Scenario` object are relative to; a file's are relative to its own folder. demand: requests to play
    instead of the scenario's workload. on_progress(now_s, num_done) is called now and then.
    Raises: SimllmError, before anything runs, if the scenario is invalid or infeasible.
    """
    folder = Path(base_dir)
    if not isinstance(scenario, Scenario):
        scenario, folder = load_scenario(scenario)
    return simulate_prepared(prepare(scenario, folder, demand), on_progress)


def prepare(scenario: Scenario, folder: Path, demand: Demand | None = None) -> Prepared:
    """Loads models, devices and requests. Raises: SimllmError if anything is missing or does not fit."""
    deployments = deploy_all(scenario.pools, folder)
    if demand is None:
        demand = build_demand(scenario.workload, seed=scenario.seed, base_dir=folder)
    return Prepared(scenario, folder, deployments, demand, lock(scenario, folder))


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
    has_reasoning = demand.reasoning_tokens is not None
    recorder = Recorder(len(demand), record_steps=scenario.run.record_steps, has_reasoning=has_reasoning)
    # SIMPLIFIED: one front end, with the first pool's times, for all replicas; effect: none with one replica.
    front_end = FrontEnd(front_end_times(deployments[0].config.engine_overhead))
    source = Source(clock, demand, recorder=recorder, front_end=front_end)
    router = make_router(scenario.router, stream(scenario.seed, "router"))
    cluster = Cluster(router, _reporting(source.request_ended, on_progress))
    pools = [deployment for deployment in deployments for _ in range(deployment.config.replicas)]
    for replica, deployment in enumerate(pools):
        cluster.add(_engine(clock, replica, deployment, scenario, recorder, cluster.request_ended, front_end))
    source.start(cluster.submit)
    with _no_garbage_collection():
        clock.run_to_end()
    recorder.ended_at = clock.now
    recorder.replicas = [_totals(engine, pool) for engine, pool in zip(cluster.engines, pools, strict=True)]
    return recorder


def _engine(
    clock: Clock,
    replica: int,
    deployment: Deployment,
    scenario: Scenario,
    recorder: Recorder,
    on_end: OnEnd,
    front_end: FrontEnd,
) -> Engine:
    config = deployment.config
    cache = PrefixKvCache if config.kv.enable_prefix_caching else PlainKvCache
    kv: KvCache = cache(num_blocks=deployment.num_kv_blocks, block_size=config.kv.block_size)
    return Engine(
        clock,
        replica=replica,
        scheduler=make_scheduler(config.scheduler, kv=kv, max_model_len=deployment.max_model_len),
        step_model=deployment.step_model,
        graphs=deployment.graphs,
        recorder=recorder,
        pipeline_depth=deployment.pipeline_depth,
        execution=Execution(deployment.step_model, deployment.profile.power),
        # With one GPU the engine's process runs the model itself; else its workers do.
        launches_in_thread=deployment.num_gpus == 1,
        schedule_s=config.engine_overhead.schedule_s if deployment.pipeline_depth > 1 else 0.0,
        leaps=scenario.run.leaps,
        front_end=front_end,
        on_end=on_end,
    )


def front_end_times(config: EngineOverheadConfig) -> FrontEndTimes:
    """Returns what a pool's front end takes."""
    names = (field.name for field in fields(FrontEndTimes))
    return FrontEndTimes(**{name: getattr(config, f"frontend_{name}") for name in names})


def _reporting(
    request_ended: Callable[[float], None], on_progress: OnProgress | None
) -> Callable[[float], None]:
    """Returns `request_ended`, reporting every 256th end to `on_progress` if there is one."""
    if on_progress is None:
        return request_ended
    num_done = 0

    def report(ended_at: float) -> None:
        nonlocal num_done
        num_done += 1
        if num_done % 256 == 0:
            on_progress(ended_at, num_done)
        request_ended(ended_at)

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


def _totals(engine: Engine, deployment: Deployment) -> ReplicaTotals:
    totals, kv, work = engine.journal.totals, engine.scheduler.kv, deployment.work
    totals.flush()
    weight_bytes = sum(
        num_steps * work.weight_bytes(num_tokens) for num_tokens, num_steps in totals.steps_by_tokens.items()
    )
    return ReplicaTotals(
        replica=engine.replica,
        pool=deployment.config.name,
        num_steps=totals.num_steps,
        num_extrapolated_steps=totals.num_extrapolated_steps,
        busy_s=totals.busy_s(),
        term_s=totals.term_s(),
        flops=work.flops(
            num_tokens=totals.num_tokens,
            attention_pairs=totals.attention_pairs,
            num_sampled=totals.num_sampled,
        ),
        hbm_bytes=weight_bytes + work.kv_bytes(totals.context_tokens),
        num_kv_blocks=kv.num_blocks,
        block_size=kv.block_size,
        prefix_query_tokens=kv.stats.query_tokens,
        prefix_hit_tokens=kv.stats.hit_tokens,
        prefix_misses=dict(kv.stats.misses),
        max_running=totals.max_running,
    )


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
        notes=prepared.demand.notes,
        wall_s=wall_s,
    )


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
    )
