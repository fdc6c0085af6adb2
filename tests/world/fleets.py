"""Fleets on toy engines: replicas that crash, slow down, come and go, without a scenario."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness import SMALL, kv_for
from toys import ToyStepModel

from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.execution import Execution
from simllm.sim.policy.admission import AdmissionSpec
from simllm.sim.policy.fault_plan import FaultSpec
from simllm.sim.policy.router import LeastOutstandingRouter, Router
from simllm.sim.policy.scheduler import make_scheduler
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand
from simllm.sim.world.clock import Clock
from simllm.sim.world.engine import Engine
from simllm.sim.world.fallible_engine import FallibleEngine, PacedStepModel
from simllm.sim.world.front_end import FrontEnd, FrontEndTimes
from simllm.sim.world.operations import Operations, PoolSize
from simllm.sim.world.recorder import Recorder
from simllm.sim.world.source import Source


def play_fleet(
    demand: Demand,
    *,
    pools: tuple[PoolSize, ...] = (PoolSize(1),),
    faults: dict[str, Any] | None = None,
    admission: dict[str, Any] | None = None,
    model: ToyStepModel = ToyStepModel(),  # noqa: B008 - frozen
    spec: VllmV1Spec = SMALL,
    num_blocks: int = 64,
    caches: bool = False,
    leaps: bool = True,
    router: Router | None = None,
    limits_s: dict[str, float] | None = None,
    seed: int = 0,
) -> Recorder:
    """Plays `demand` to its end and returns what was recorded, the fleet's totals included."""
    clock = Clock()
    recorder = Recorder(len(demand), record_steps=True)
    front_end = FrontEnd(FrontEndTimes())
    source = Source(clock, demand, recorder=recorder, front_end=front_end)

    def make_engine(replica: int, pool: int, on_end: Any) -> Engine:
        kv = kv_for(spec, num_blocks=num_blocks, block_size=4, caches=caches)
        own = replace(model, base_s=model.base_s * (1 + replica / 997))
        engine = FallibleEngine(
            clock,
            replica=replica,
            scheduler=make_scheduler(spec, kv=kv, max_model_len=spec.max_model_len or 1 << 20, block_bytes=1),
            step_model=own,
            graphs=CudaGraphSizes((1, 2, 4, 8)),
            recorder=recorder,
            pipeline_depth=2 if spec.async_scheduling else 1,
            execution=Execution(own, None),
            launches_in_thread=False,
            schedule_s=0.0,
            mover=None,
            leaps=leaps,
            front_end=front_end,
            on_end=on_end,
        )
        engine.pace(PacedStepModel(own))
        return engine

    operations = Operations(
        clock,
        recorder,
        router or LeastOutstandingRouter(),
        pools=pools,
        make_engine=make_engine,
        on_end=source.request_ended,
        admission=None if admission is None else AdmissionSpec.model_validate(admission),
        faults=None if faults is None else FaultSpec.model_validate(faults),
        limits_s=limits_s,
        seed=seed,
    )
    source.start(operations.submit)
    clock.run_to_end()
    recorder.ended_at = clock.now if operations.ended_at is None else operations.ended_at
    operations.close(recorder.ended_at)
    for engine in operations.cluster.engines:
        engine.journal.totals.flush()
    return recorder
