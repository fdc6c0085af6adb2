"""A run made by hand: four requests, eight steps, every number below worked out on paper.

    arrives  prompt  asks  what happens on replica 0 (100 blocks of 16)
r0    0.0      32      3   first token 0.4, second 0.5, last 0.8
r1    0.5      16      1   first and only token 0.8
r2    1.0      64      5   first token 1.5, then a leap of four steps: 1.60, 1.72, 1.86, 2.02
r3    1.5    9000      9   rejected: exceeds_kv_cache

step 0  0.0-0.4  prefill r0      step 2  0.5-0.8  decode r0, prefill r1
step 1  0.4-0.5  decode r0       step 3  1.0-1.5  prefill r2
steps 4-7 from 1.5: 0.10, 0.12, 0.14, 0.16 s, context 65, 66, 67, 68; the block after 80 tokens is far
"""

from __future__ import annotations

import numpy as np

from simllm.hwmodels.step import DecodeLine
from simllm.sim.outcome.meta import PoolMeta, RunMeta, Slo
from simllm.sim.outcome.results import Result
from simllm.sim.workload.demand import Demand
from simllm.sim.world.recorder import Recorder, ReplicaTotals, Status, StepRun

TERMS = ("gemm", "attention")


def make_step(
    step: int, started_at: float, base_s: float, *, slope_s: float = 0.0, num_steps: int = 1, **counts: int
) -> StepRun:
    """A run of steps whose cost is 3/4 gemm and 1/4 attention; counts not given are 0."""
    fields = dict.fromkeys(StepRun._fields, 0) | counts
    shares = (0.75, 0.25)
    line = DecodeLine(
        base_s,
        slope_s,
        num_steps,
        tuple(share * base_s for share in shares),
        tuple(share * slope_s for share in shares),
        "hbm" if counts.get("num_decodes") else "compute",
    )
    fields |= {"first_step": step, "num_steps": num_steps, "started_at": started_at, "line": line}
    return StepRun(**fields | {"block_growth": (0, 1) if num_steps > 1 else ()})


def hand_made_steps() -> list[StepRun]:
    return [
        make_step(0, 0.0, 0.4, num_prefill_tokens=32, num_prefill_chunks=1, num_sampled=1, kv_blocks_used=2),
        make_step(1, 0.4, 0.1, num_decodes=1, sum_decode_context=33, num_sampled=1, kv_blocks_used=3),
        make_step(
            2,
            0.5,
            0.3,
            num_prefill_tokens=16,
            num_prefill_chunks=1,
            num_decodes=1,
            sum_decode_context=34,
            num_sampled=2,
            num_running=2,
            kv_blocks_used=4,
        ),
        make_step(3, 1.0, 0.5, num_prefill_tokens=64, num_prefill_chunks=1, num_sampled=1, kv_blocks_used=4),
        make_step(
            4,
            1.5,
            0.10,
            slope_s=0.02,
            num_steps=4,
            num_decodes=1,
            sum_decode_context=65,
            num_sampled=1,
            num_running=1,
            num_preempted=1,
            kv_blocks_used=5,
        ),
    ]


def make_demand() -> Demand:
    return Demand(
        arrived_at=np.array([0.0, 0.5, 1.0, 1.5]),
        prompt_tokens=np.array([32, 16, 64, 9000]),
        output_tokens=np.array([3, 1, 5, 9]),
    )


def make_recorder(*, record_steps: bool = True) -> Recorder:
    recorder = Recorder(4, record_steps=record_steps)
    if recorder.steps is not None:
        recorder.steps += hand_made_steps()
    for row, arrived_at in enumerate((0.0, 0.5, 1.0, 1.5)):
        recorder.arrived_at[row] = arrived_at
        recorder.replica[row] = 0
    rows = ((0.0, 0.4, 0.8, 3), (0.5, 0.8, 0.8, 1), (1.0, 1.5, 2.02, 5))
    for row, (scheduled_at, first_token_at, finished_at, output_tokens) in enumerate(rows):
        recorder.scheduled_at[row] = scheduled_at
        recorder.first_token_at[row] = first_token_at
        recorder.finished_at[row] = finished_at
        if recorder.steps is not None:
            recorder.first_step_ended_at[row], recorder.last_step_ended_at[row] = first_token_at, finished_at
        recorder.output_tokens[row] = output_tokens
        recorder.status[row] = Status.FINISHED
    recorder.status[3] = Status.REJECTED
    recorder.reasons[3] = "exceeds_kv_cache"
    recorder.cached_tokens[2] = 16
    for gap in (0.1, 0.3):
        recorder.gaps.add(gap)
    for gap_s in (0.10, 0.12, 0.14, 0.16):
        recorder.gaps.add(gap_s)
    recorder.replicas.append(make_totals())
    recorder.ended_at = 2.02
    return recorder


def make_totals() -> ReplicaTotals:
    # busy: 0.4 + 0.1 + 0.3 + 0.5 + 0.52 = 1.82 s
    return ReplicaTotals(
        replica=0,
        pool="main",
        num_steps=8,
        num_extrapolated_steps=0,
        busy_s=1.82,
        term_s={"gemm": 0.75 * 1.82, "attention": 0.25 * 1.82},
        flops=202e12,
        hbm_bytes=1.01e12,
        num_kv_blocks=100,
        block_size=16,
        prefix_query_tokens=112,
        prefix_hit_tokens=16,
        prefix_misses={"no_shared_prefix": 96},
        max_running=2,
    )


def make_meta(slo: Slo | None = None) -> RunMeta:
    pool = PoolMeta("main", "toy", 1, 1, peak_flops_per_s=1000e12, hbm_bytes_per_s=2e12)
    return RunMeta(
        scenario_name="by hand",
        scenario_sha256="ab" * 32,
        seed=0,
        model="tiny",
        profile={"name": "toy", "kind": "datasheet"},
        pools=(pool,),
        terms=TERMS,
        simllm_version="0.1.0",
        lock_yaml="seed: 0\n",
        slo=slo or Slo(),
        wall_s=0.01,
    )


def make_result(*, slo: Slo | None = None, record_steps: bool = True) -> Result:
    return Result(make_recorder(record_steps=record_steps), make_demand(), make_meta(slo))
