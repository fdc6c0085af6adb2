"""One tier's content: what is stored can be matched, a full tier evicts, and block by block the sum holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.policy.kv.tiers.eviction.build import make_eviction
from simllm.sim.policy.kv.tiers.eviction.lru import LruEviction
from simllm.sim.policy.kv.tiers.eviction.spec import (
    ArcSpec,
    CostAwareSpec,
    EvictionSpec,
    FifoSpec,
    LfuSpec,
    LruSpec,
    RandomEvictionSpec,
)
from simllm.sim.policy.kv.tiers.store import Evicted, Span, TierStore

A, B, C = 1, 2, 3


def make_store(capacity: int = 10) -> TierStore:
    return TierStore("dram", capacity, LruEviction())


def put(store: TierStore, runs: tuple[tuple[object, int], ...], span: Span | None = None) -> list[Evicted]:
    """Uses and stores a chain, or a span of it, at once; returns what had to go."""
    span = span or (0, sum(size for _, size in runs))
    use = store.use(0.0)
    store.touch(runs, span[1], use)
    spans, evicted = store.insert(runs, span, use)
    store.complete(runs, spans)
    store.check()
    return evicted


def test_what_is_on_its_way_in_cannot_be_loaded_yet() -> None:
    store = make_store()
    spans, _ = store.insert(((A, 4),), (0, 4), store.use(0.0))
    assert (spans, store.match(((A, 4),), 0, 4)) == ([(0, 4)], 0)
    store.complete(((A, 4),), spans)
    assert store.match(((A, 9),), 0, 9) == 4


def test_a_chain_matches_as_far_as_it_is_the_same() -> None:
    store = make_store()
    put(store, ((A, 4), (B, 3)))
    assert store.match(((A, 4), (C, 3)), 0, 7) == 4
    assert store.match(((A, 2), (B, 3)), 0, 5) == 2, "B follows 2 blocks of A here, 4 there"
    assert store.match(((A, 4), (B, 3)), 5, 7) == 2, "the end can be asked for alone"


def test_the_end_of_a_chain_can_be_stored_without_its_beginning() -> None:
    store = make_store()
    put(store, ((A, 6),), (4, 6))
    assert store.match(((A, 6),), 0, 6) == 0
    assert store.match(((A, 6),), 4, 6) == 2
    assert store.num_used == 2


def test_a_full_tier_evicts_the_end_of_what_was_used_least_recently() -> None:
    # 10 blocks: A's 6 and B's 4; C's 3 take the last 3 of A, which B's beginning is younger than.
    store = make_store()
    put(store, ((A, 6),))
    put(store, ((B, 4),))
    assert put(store, ((C, 3),)) == [(((A, 6),), (3, 6))]
    assert store.match(((A, 6),), 0, 6) == 3
    assert (store.num_inserted, store.num_evicted, store.num_used) == (13, 3, 10)


def test_a_pinned_chain_stays_and_what_has_no_room_is_not_stored() -> None:
    store = make_store()
    put(store, ((A, 6),))
    store.pin(((A, 6),), (0, 6))
    assert put(store, ((B, 8),)) == []
    assert store.match(((B, 8),), 0, 8) == 4, "as much as fits, from the beginning"
    store.unpin(((A, 6),), (0, 6))
    put(store, ((C, 5),))
    assert store.match(((A, 6),), 0, 6) == 1


def test_a_beginning_that_pushes_out_its_own_end_is_stored() -> None:
    store = make_store(4)
    put(store, ((A, 4), (B, 4)), (4, 8))
    put(store, ((A, 4), (B, 4)), (0, 4))
    assert store.match(((A, 4), (B, 4)), 0, 8) == 4


def test_a_smaller_tier_keeps_what_was_used_last() -> None:
    store = make_store()
    put(store, ((A, 5),))
    put(store, ((B, 5),))
    store.resize(4)
    store.check()
    assert (store.num_used, store.match(((B, 5),), 0, 5)) == (4, 4)


CHAINS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=3).map(tuple)
STEPS = st.lists(st.tuples(CHAINS, st.integers(0, 12), st.integers(0, 12), st.integers(0, 4)), max_size=30)


EVICTIONS = st.sampled_from(
    [LruSpec(), LfuSpec(), FifoSpec(), RandomEvictionSpec(), ArcSpec(), CostAwareSpec()]
)


@settings(max_examples=300, deadline=None)
@given(capacity=st.integers(1, 25), eviction=EVICTIONS, steps=STEPS)
def test_a_hit_needs_an_earlier_insert_and_every_block_is_there_or_evicted(
    capacity: int, eviction: EvictionSpec, steps: list[tuple[tuple[tuple[object, int], ...], int, int, int]]
) -> None:
    rng = np.random.default_rng(0)
    policy = make_eviction(eviction, capacity_blocks=capacity, rng=rng, saved_s=lambda at, n: 1.0 * n)
    store = TierStore("dram", capacity, policy)
    held: set[tuple[object, ...]] = set()  # every block by the keys before and at it
    pinned: list[tuple[tuple[tuple[object, int], ...], Span]] = []
    for runs, first, length, action in steps:
        names = [key for key, size in runs for _ in range(size)]
        span = (min(first, len(names)), min(first + length, len(names)))
        found = store.match(runs, *span)
        assert all(tuple(names[: i + 1]) in held for i in range(span[0], span[0] + found))
        if action == 0 and found:
            pinned.append((runs, (span[0], span[0] + found)))
            store.pin(*pinned[-1])
        elif action == 1 and pinned:
            store.unpin(*pinned.pop())
        elif span[0] < span[1]:
            use = store.use(0.0)
            store.touch(runs, span[1], use)
            spans, evicted = store.insert(runs, span, use)
            gone = [(chain, lost) for chain, lost in evicted]
            for chain, lost in gone:
                keys = [key for key, size in chain for _ in range(size)]
                held -= {tuple(keys[: i + 1]) for i in range(*lost)}
            held |= {tuple(names[: i + 1]) for new in spans for i in range(*new)}
            store.complete(runs, spans)
        store.check()
        assert store.num_used == len(held) <= capacity
        assert all(store.match(runs, *span) == span[1] - span[0] for runs, span in pinned)
