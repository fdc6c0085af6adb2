"""One replica from its deployment: cache, scheduler and engine put together, and what its life adds up to."""

from __future__ import annotations

from dataclasses import fields

from ..hwmodels.execution import Execution
from ..hwmodels.pipeline_step import PipelineStepModel
from .deployment import Deployment
from .parallelism import waits_for_tokens
from .policy.kv.blocks import KvCache
from .policy.kv.build import make_kv_cache
from .policy.kv.tiers.figures import GB
from .policy.scheduler import PipelinedVllmV1Scheduler, make_scheduler
from .policy.scheduler.base import Scheduler
from .pool import EngineOverheadConfig
from .scenario import Scenario
from .world.clock import Clock
from .world.engine import Engine, OnEnd
from .world.fallible_engine import FallibleEngine, PacedStepModel
from .world.front_end import FrontEnd, FrontEndTimes
from .world.operations import PoolSize
from .world.pipeline import Pipeline
from .world.recorder import Recorder, ReplicaTotals
from .world.tiering import PoolTiers, needs_mover, writes_back_from_hbm


def make_replica(
    clock: Clock,
    replica: int,
    deployment: Deployment,
    tiers: PoolTiers,
    scenario: Scenario,
    recorder: Recorder,
    on_end: OnEnd,
    front_end: FrontEnd,
) -> Engine:
    """Returns a replica of a pool, idle; on_end is told of every request that ends there."""
    config = deployment.config
    mover = tiers.mover(replica) if needs_mover(config) else None
    kv = make_kv_cache(
        config.kv,
        num_blocks=deployment.num_kv_blocks,
        max_model_len=deployment.max_model_len,
        block_bytes=tiers.block_bytes,
        tiers=None if mover is None else tiers.setup(replica, mover),
        scheduler=config.scheduler.kind,
        device=deployment.profile.device.name,
    )
    scheduler = _scheduler(deployment, kv, tiers.block_bytes)
    step_model, power = deployment.step_model, deployment.profile.power
    pipeline = Pipeline(step_model, power) if isinstance(step_model, PipelineStepModel) else None
    engine_type = Engine if scenario.faults is None else FallibleEngine
    engine = engine_type(
        clock,
        replica=replica,
        scheduler=scheduler,
        step_model=step_model,
        graphs=deployment.graphs,
        recorder=recorder,
        pipeline_depth=deployment.pipeline_depth,
        execution=None if pipeline is not None else Execution(step_model, power),
        # With one GPU the engine's process runs the model itself; else its workers do.
        launches_in_thread=deployment.num_gpus == 1,
        schedule_s=config.engine_overhead.schedule_s if deployment.pipeline_depth > 1 else 0.0,
        mover=mover,
        leaps=scenario.run.leaps and not writes_back_from_hbm(kv),
        front_end=front_end,
        on_end=on_end,
        pipeline=pipeline,
        micro_batches=scheduler if isinstance(scheduler, PipelinedVllmV1Scheduler) else None,
    )
    if isinstance(engine, FallibleEngine):
        engine.pace(PacedStepModel(step_model))
    return engine


def _scheduler(deployment: Deployment, kv: KvCache, block_bytes: int) -> Scheduler:
    return make_scheduler(
        deployment.config.scheduler,
        kv=kv,
        max_model_len=deployment.max_model_len,
        block_bytes=block_bytes,
        num_gpus=deployment.num_gpus,
        num_layers=deployment.model.num_layers,
        waits_for_tokens=waits_for_tokens(deployment.config),
    )


def front_end_times(config: EngineOverheadConfig) -> FrontEndTimes:
    """Returns what a pool's front end takes."""
    names = (field.name for field in fields(FrontEndTimes))
    return FrontEndTimes(**{name: getattr(config, f"frontend_{name}") for name in names})


def pool_size(deployment: Deployment) -> PoolSize:
    """Returns how many replicas a pool has, and what a new one takes to load its weights."""
    config = deployment.config
    if config.autoscaler is None:
        return PoolSize(config.replicas)
    weight_bytes = deployment.budget.weight_bytes * deployment.num_gpus
    load_s = weight_bytes / (config.autoscaler.load_gb_per_s * GB)
    return PoolSize(config.replicas, config.autoscaler, load_s)


def replica_totals(engine: Engine, deployment: Deployment, lived_s: float | None) -> ReplicaTotals:
    """Returns what a replica did in all; lived_s: how long it was up [s], None for the whole run."""
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
        num_stages=1 if engine.pipeline is None else engine.pipeline.num_stages,
        bubble_share=None if engine.pipeline is None else engine.pipeline.bubble_share(totals.busy_s()),
        lived_s=lived_s,
    )
