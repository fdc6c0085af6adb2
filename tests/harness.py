"""Runs engines on toy step models, without a scenario: the smallest whole simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from toys import ToyStepModel

from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.execution import Execution
from simllm.hwmodels.power import PowerLimit
from simllm.sim.policy.kv.blocks import KvCache
from simllm.sim.policy.kv.ksana import KsanaKvCache
from simllm.sim.policy.kv.plain import PlainKvCache
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.router import LeastOutstandingRouter, Router
from simllm.sim.policy.scheduler import SchedulerSpec, make_scheduler
from simllm.sim.policy.scheduler.engine_spec import EngineSpec
from simllm.sim.policy.scheduler.ksana import KsanaSpec
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand
from simllm.sim.world.clock import Clock
from simllm.sim.world.cluster import Cluster
from simllm.sim.world.engine import Engine
from simllm.sim.world.front_end import FrontEnd, FrontEndTimes
from simllm.sim.world.link import Link, Links
from simllm.sim.world.recorder import Recorder
from simllm.sim.world.source import Source
from simllm.sim.world.transfer import Route, TierMover

SMALL = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64)
BLOCK_BYTES = 1 << 20
MakeTiers = Callable[[Clock, int, KvCache], tuple[KvCache, TierMover]]


def make_demand(rows: list[tuple[float, int, int]], num_clients: int | None = None) -> Demand:
    """Requests as (arrived_at, prompt_tokens, output_tokens)."""
    at, prompts, outputs = zip(*rows, strict=True)
    return Demand(np.array(at, dtype=float), np.array(prompts), np.array(outputs), num_clients=num_clients)


def play(
    demand: Demand,
    *,
    model: ToyStepModel = ToyStepModel(),  # noqa: B008 - frozen
    spec: SchedulerSpec = SMALL,
    num_blocks: int = 64,
    block_size: int = 4,
    caches: bool = False,
    leaps: bool = True,
    num_replicas: int = 1,
    frontend_s: tuple[float, float] = (0.0, 0.0),
    power: PowerLimit | None = None,
    launches_in_thread: bool = False,
    schedule_s: float = 0.0,
    checks_blocks: bool = False,
    times: FrontEndTimes | None = None,
    router: Router | None = None,
    copy_s: float = 0.0,
    tiers: MakeTiers | None = None,
    make_kv: Callable[[], KvCache] | None = None,
) -> tuple[Recorder, list[Engine]]:
    """Plays `demand` to its end and returns what was recorded.

    copy_s: what moving one block to host memory or back takes, one block after the other each way [s].
    make_kv: the cache of HBM, if none of the two usual ones.
    tiers(clock, replica, cache of HBM): a cache over tiers, and what times its moves.
    """
    clock = Clock()
    recorder = Recorder(len(demand), record_steps=True)
    front_end = FrontEnd(times or FrontEndTimes(in_s=frontend_s[0], out_s=frontend_s[1]))
    source = Source(clock, demand, recorder=recorder, front_end=front_end)
    cluster = Cluster(clock, router or LeastOutstandingRouter(), source.request_ended, recorder.refused)
    for replica in range(num_replicas):
        kv = (
            make_kv()
            if make_kv
            else kv_for(spec, num_blocks=num_blocks, block_size=block_size, caches=caches)
        )
        mover = host_mover(clock, copy_s) if copy_s else None
        if tiers is not None:
            kv, mover = tiers(clock, replica, kv)
        scheduler = make_scheduler(
            spec, kv=kv, max_model_len=spec.max_model_len or 1 << 20, block_bytes=BLOCK_BYTES
        )
        # Equal replicas would end steps at the same instant but for rounding.
        step_model = replace(model, base_s=model.base_s * (1 + replica / 997))
        engine = Engine(
            clock,
            replica=replica,
            scheduler=scheduler,
            step_model=step_model,
            graphs=CudaGraphSizes((1, 2, 4, 8)),
            recorder=recorder,
            pipeline_depth=2 if spec.async_scheduling else 1,
            execution=Execution(step_model, power),
            launches_in_thread=launches_in_thread,
            schedule_s=schedule_s if spec.async_scheduling else 0.0,
            mover=mover,
            leaps=leaps,
            front_end=front_end,
            on_end=cluster.request_ended,
        )
        cluster.add(engine)
    source.start(cluster.submit)
    while clock.peek() < float("inf"):
        clock.step()
        if checks_blocks:
            for engine in cluster.engines:
                engine.scheduler.check()
    for engine in cluster.engines:
        engine.journal.totals.flush()
    return recorder, cluster.engines


def kv_for(spec: EngineSpec, *, num_blocks: int, block_size: int, caches: bool) -> KvCache:
    """Returns vLLM's cache or a plain one; KsanaLLM's own for its scheduler, which swaps through it."""
    if isinstance(spec, KsanaSpec):
        return KsanaKvCache(
            num_blocks=num_blocks,
            block_size=block_size,
            shares=caches,
            num_spare_tokens=1,
            hits_whole_prompts=True,
        )
    cache = PrefixKvCache if caches else PlainKvCache
    return cache(num_blocks=num_blocks, block_size=block_size)


def host_mover(clock: Clock, copy_s: float) -> TierMover:
    """Returns a mover to host memory and back, each way with its own link of a block every `copy_s` [s]."""
    ways = {
        way: Route((Link("->".join(way), BLOCK_BYTES / copy_s),))
        for way in (("hbm", "dram"), ("dram", "hbm"))
    }
    return TierMover(Links(clock), ways, num_layers=1)


def request_rows(recorder: Recorder) -> NDArray[np.float64]:
    """All that is recorded of each request, as rows of numbers."""
    columns = (
        recorder.arrived_at,
        recorder.scheduled_at,
        recorder.first_token_at,
        recorder.finished_at,
        recorder.output_tokens,
        recorder.cached_tokens,
        recorder.num_preemptions,
        recorder.recomputed_tokens,
        recorder.replica,
        recorder.status,
    )
    return np.array([np.asarray(column, dtype=float) for column in columns]).T


def step_rows(recorder: Recorder) -> NDArray[np.float64]:
    """The steps, leaps expanded one by one: replica, step, start, duration and counts."""
    rows = []
    for run in recorder.steps or []:
        started_at, blocks = run.started_at, run.kv_blocks_used
        for i in range(run.num_steps):
            duration = run.line.base_s + i * run.line.slope_s
            if i:
                blocks += run.block_growth[(i - 1) % len(run.block_growth)]
            context = run.sum_decode_context + i * run.num_decodes
            counts = (run.num_prefill_tokens, run.num_decodes, context, run.num_padded_tokens)
            state = (run.num_sampled, run.num_running, run.num_waiting, run.num_preempted, blocks)
            rows.append((run.replica, run.first_step + i, started_at, duration, *counts, *state))
            started_at += duration
    return np.array(sorted(rows))
