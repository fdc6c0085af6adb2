"""Laws of tiers, whatever the scenario: every request ends, blocks add up, leaps change nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.kv.tiers.rules import TierRules
from simllm.sim.policy.kv.tiers.spec import PrefetchSpec, TierSpec
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.workload.demand import Demand
from simllm.sim.world.recorder import Recorder, Status

from .drawn import demands
from .tiered import Tiered, tier

ODD_S = math.pi / 300
EVICTIONS = st.sampled_from(["lru", "lfu", "fifo", "random", "ttl", "arc", "position_aware", "turn_aware"])


@st.composite
def stacks(draw: st.DrawFn) -> list[TierSpec]:
    """One to three tiers of a few blocks each."""
    names = draw(st.sampled_from([["dram"], ["dram", "nvme"], ["dram", "nvme", "remote"]]))
    return [
        tier(
            name,
            draw(st.sampled_from([5, 20, 200])),
            eviction={"kind": draw(EVICTIONS)},
            write="write_through" if number == 0 else draw(st.sampled_from(["write_through", "write_back"])),
            sharing=draw(st.sampled_from(["replica", "global"])),
        )
        for number, name in enumerate(names)
    ]


@st.composite
def rules(draw: st.DrawFn) -> TierRules:
    """Ways to load, with or without a prefetch."""
    stop = draw(st.sampled_from([None, "best_effort", "wait_complete", "timeout"]))
    prefetch = None
    if stop is not None:
        prefetch = PrefetchSpec(stop=stop, threshold_tokens=4, timeout_base_s=0.05, piece_blocks=2)
    return TierRules(
        load=draw(st.sampled_from(["async", "along", "before"])),
        num_direct=draw(st.sampled_from([1, 3])),
        cheaper_only=draw(st.booleans()),
        min_load_tokens=draw(st.sampled_from([1, 10])),
        promotes=draw(st.booleans()),
        prefetch=prefetch,
    )


def played(demand: Demand, specs: list[TierSpec], how: TierRules, **more: object) -> tuple[Recorder, Tiered]:
    tiered = Tiered(specs, how, copy_s=math.e / 900, prefill_s=0.002)
    recorder, _ = play(
        demand,
        model=ToyStepModel(base_s=ODD_S, token_s=0.0007, context_s=1.3e-5),
        caches=True,
        tiers=tiered.make,
        **more,  # type: ignore[arg-type]
    )
    return recorder, tiered


SETTINGS = {
    "num_blocks": st.sampled_from([35, 60, 400]),
    "num_replicas": st.sampled_from([1, 1, 2]),
    "is_async": st.booleans(),
}


@settings(max_examples=150, deadline=None)
@given(demand=demands(), specs=stacks(), how=rules(), **SETTINGS)
def test_every_request_ends_and_blocks_add_up(
    demand: Demand, specs: list[TierSpec], how: TierRules, num_blocks: int, num_replicas: int, is_async: bool
) -> None:
    spec = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=is_async)
    recorder, tiered = played(
        demand, specs, how, spec=spec, num_blocks=num_blocks, num_replicas=num_replicas, checks_blocks=True
    )
    assert set(recorder.status) <= {Status.FINISHED, Status.REJECTED}
    for cache, mover in zip(tiered.caches, tiered.movers, strict=True):
        for name, traffic in cache.traffic.items():
            moved = mover.num_bytes.items()
            assert traffic.written_bytes == sum(size for (_, target), size in moved if target == name)
            assert traffic.read_bytes == sum(size for (source, _), size in moved if source == name)
        for one in cache.tiers:
            assert one.store.num_used <= one.store.capacity_blocks


@settings(max_examples=200, deadline=None)
@given(demand=demands(), specs=stacks(), how=rules(), **SETTINGS)
def test_a_leaping_run_gives_the_rows_of_a_plain_run(
    demand: Demand, specs: list[TierSpec], how: TierRules, num_blocks: int, num_replicas: int, is_async: bool
) -> None:
    spec = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=is_async)
    more = {"spec": spec, "num_blocks": num_blocks, "num_replicas": num_replicas}
    runs = [played(demand, specs, how, leaps=leaps, **more)[0] for leaps in (True, False)]
    leaping, plain = (request_rows(recorder) for recorder in runs)
    np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)
    leaping, plain = (step_rows(recorder) for recorder in runs)
    np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(demand=demands())
def test_an_endless_tier_of_no_cost_is_as_good_as_endless_hbm(demand: Demand) -> None:
    # Of one replica: what was computed once is never computed again, but for what is in flight.
    spec = VllmV1Spec(max_num_seqs=1, max_num_batched_tokens=64, async_scheduling=False)
    how = TierRules(load="before", num_direct=1)
    tiered = Tiered([tier("dram", 10_000)], how, copy_s=1e-12)
    model = ToyStepModel(base_s=ODD_S, token_s=0.0007)
    small, _ = play(demand, model=model, spec=spec, num_blocks=60, caches=True, tiers=tiered.make)
    large, _ = play(demand, model=model, spec=spec, num_blocks=10_000, caches=True)
    served = np.asarray(small.status) == Status.FINISHED
    assert np.asarray(small.first_token_at)[served] == pytest.approx(
        np.asarray(large.first_token_at)[served], rel=1e-6
    )
