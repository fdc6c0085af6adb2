"""Laws of stores whose nodes fail: every request ends, copies add up, leaps and reruns change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.kv.tiers.failures import CAUSES
from simllm.sim.policy.kv.tiers.rules import TierRules
from simllm.sim.policy.kv.tiers.spec import PrefetchSpec, TierSpec
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun
from simllm.sim.workload.demand import Demand
from simllm.sim.world.recorder import Recorder, Status

from .tiered import Tiered, tier

ODD_S = math.pi / 300
NUM_NODES = 3
SIZES = (st.sampled_from([30, 77, 119]), st.integers(1, 20), st.integers(1, 4))
AT = st.floats(0, 3).map(lambda at: at * math.e / 2)
NODE = st.integers(0, NUM_NODES - 1)
LOSSES = st.fixed_dictionaries({"node": NODE, "at_s": AT, "back_after_s": st.sampled_from([None, 0.21, 0.9])})
CUTS = st.fixed_dictionaries(
    {"nodes": st.lists(NODE, min_size=1, max_size=3), "at_s": AT, "for_s": st.sampled_from([0.13, 0.7])}
)
STORES = st.fixed_dictionaries(
    {
        "num_nodes": st.just(NUM_NODES),
        "replication": st.integers(1, NUM_NODES),
        "write": st.sampled_from(["synchronous", "quorum", "asynchronous"]),
        "stripe_blocks": st.sampled_from([2, 5, 64]),
        "index_delay_s": st.sampled_from([0.0, 0.17, 1.1]),
        "timeout_s": st.sampled_from([0.0, 0.031]),
        "checksum_failures": st.sampled_from([0.0, 0.05, 0.5]),
        "losses": st.lists(LOSSES, max_size=3),
        "partitions": st.lists(CUTS, max_size=2),
        "rebuild": st.sampled_from(["replicas", "recompute"]),
        "version_changes": st.lists(AT, max_size=1),
    }
)


@st.composite
def texts(draw: st.DrawFn) -> Demand:
    """Requests for the beginnings of four texts, again and again: HBM keeps one of them."""
    rows = draw(st.lists(st.tuples(*SIZES), min_size=6, max_size=16))
    rate = draw(st.sampled_from([3.0, 5.0, 50.0]))
    demand = make_demand([(number / rate, prompt, output) for number, (prompt, output, _) in enumerate(rows)])
    demand.contents = [(ContentRun(key, prompt),) for prompt, _, key in rows]
    return demand


@st.composite
def stacks(draw: st.DrawFn) -> list[TierSpec]:
    """A store, under a small host or alone."""
    store = tier(
        "remote",
        draw(st.sampled_from([9, 60, 600])),
        store=draw(STORES),
        write=draw(st.sampled_from(["write_through", "write_through_selective"])),
        eviction={"kind": draw(st.sampled_from(["lru", "lfu", "arc"]))},
    )
    return [tier("dram", 12), store] if draw(st.booleans()) else [store]


@st.composite
def rules(draw: st.DrawFn) -> TierRules:
    """Ways to load, with or without a prefetch."""
    stop = draw(st.sampled_from([None, None, "best_effort", "wait_complete", "timeout"]))
    prefetch = None
    if stop is not None:
        prefetch = PrefetchSpec(stop=stop, threshold_tokens=4, timeout_base_s=0.05, piece_blocks=2)
    return TierRules(
        load=draw(st.sampled_from(["async", "along", "before"])),
        num_direct=draw(st.sampled_from([1, 2])),
        cheaper_only=draw(st.booleans()),
        prefetch=prefetch,
    )


def played(
    demand: Demand, specs: Sequence[TierSpec], how: TierRules, *, is_async: bool, **more: object
) -> tuple[Recorder, Tiered]:
    tiered = Tiered(specs, how, copy_s=math.e / 900, prefill_s=0.02)
    recorder, _ = play(
        demand,
        spec=VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=is_async),
        model=ToyStepModel(base_s=ODD_S, token_s=0.0007, context_s=1.3e-5),
        num_blocks=40,
        caches=True,
        tiers=tiered.make,
        **more,  # type: ignore[arg-type]
    )
    return recorder, tiered


def sums(tiered: Tiered) -> list[object]:
    """All that was counted of the tiers."""
    found: list[object] = []
    for cache in tiered.caches:
        found.append(cache.traffic)
        for one in cache.tiers:
            copies = one.store.copies
            found.append((one.store.num_inserted, one.store.num_evicted, one.store.num_lost))
            if copies is not None:
                found.append((copies.num_in, copies.num_lost, copies.num_rebuilt, copies.num_replicated))
    return found


SETTINGS = {"demand": texts(), "specs": stacks(), "how": rules(), "is_async": st.booleans()}
REPLICAS = st.sampled_from([1, 2])


@settings(max_examples=150, deadline=None)
@given(num_replicas=REPLICAS, **SETTINGS)
def test_every_request_ends_and_copies_add_up_whatever_fails(
    demand: Demand, specs: list[TierSpec], how: TierRules, is_async: bool, num_replicas: int
) -> None:
    recorder, tiered = played(
        demand, specs, how, is_async=is_async, num_replicas=num_replicas, checks_blocks=True
    )
    assert set(recorder.status) <= {Status.FINISHED, Status.REJECTED}
    for cache, mover in zip(tiered.caches, tiered.movers, strict=True):
        for name, traffic in cache.traffic.items():
            moved = mover.num_bytes.items()
            assert traffic.written_bytes == sum(size for (_, target), size in moved if target == name)
            assert traffic.read_bytes == sum(size for (source, _), size in moved if source == name)
            assert set(traffic.recomputed_by) <= set(CAUSES)
        for one in cache.tiers:
            assert one.store.num_used <= one.most_blocks
            assert not any(run.num_pins for run in one.store.tree.stored()), "nothing is under way any more"


@settings(max_examples=80, deadline=None)
@given(num_replicas=REPLICAS, **SETTINGS)
def test_a_leaping_run_gives_the_rows_of_a_plain_run_whatever_fails(
    demand: Demand, specs: list[TierSpec], how: TierRules, is_async: bool, num_replicas: int
) -> None:
    runs = [
        played(demand, specs, how, is_async=is_async, leaps=leaps, num_replicas=num_replicas)
        for leaps in (True, False)
    ]
    leaping, plain = (request_rows(recorder) for recorder, _ in runs)
    np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)
    leaping, plain = (step_rows(recorder) for recorder, _ in runs)
    np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)
    assert sums(runs[0][1]) == sums(runs[1][1])


@settings(max_examples=25, deadline=None)
@given(**SETTINGS)
def test_the_same_run_again_gives_the_same_bytes(
    demand: Demand, specs: list[TierSpec], how: TierRules, is_async: bool
) -> None:
    runs = [played(demand, specs, how, is_async=is_async) for _ in range(2)]
    first, second = (request_rows(recorder).tobytes() for recorder, _ in runs)
    assert first == second
    assert sums(runs[0][1]) == sums(runs[1][1])
