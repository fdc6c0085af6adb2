"""What each policy evicts first, by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simllm.sim.policy.kv.tiers.eviction.base import Eviction
from simllm.sim.policy.kv.tiers.eviction.build import make_eviction
from simllm.sim.policy.kv.tiers.eviction.spec import (
    ArcSpec,
    AttentionImportanceSpec,
    CostAwareSpec,
    EvictionSpec,
    FifoSpec,
    LfuSpec,
    LruSpec,
    PositionAwareSpec,
    RandomEvictionSpec,
    TtlSpec,
    TurnAwareSpec,
)
from simllm.sim.policy.kv.tiers.store import TierStore

A, B, C = 1, 2, 3


def policy(spec: EvictionSpec, seed: int = 0) -> Eviction:
    # Computing a block takes 1 s and 0.1 s more for each block of context; loading one takes 0.5 s.
    def saved_s(context: int, num_blocks: int) -> float:
        return num_blocks * (1.0 + 0.1 * context - 0.5)

    return make_eviction(spec, capacity_blocks=4, rng=np.random.default_rng(seed), saved_s=saved_s)


class Told:
    """A tier of 4 blocks whose content is used at the instants 1, 2, ... [s]."""

    def __init__(self, eviction: Eviction, capacity: int = 4) -> None:
        self.store = TierStore("dram", capacity, eviction)
        self.now = 0.0

    def use(self, *runs: tuple[object, int], turn: int = 0) -> list[object]:
        """Uses a chain and stores what is missing; returns the keys of what had to go."""
        self.now += 1.0
        end = sum(size for _, size in runs)
        use = self.store.use(self.now, turn)
        self.store.touch(runs, end, use)
        spans, evicted = self.store.insert(runs, (0, end), use)
        self.store.complete(runs, spans)
        self.store.check()
        return [chain[-1][0] for chain, _ in evicted]


@pytest.mark.parametrize(
    ("spec", "gone"),
    [
        (LruSpec(), [B]),
        (FifoSpec(), [A]),
        (LfuSpec(), [B]),
        (TtlSpec(ttl_s=100), [B]),
    ],
)
def test_of_two_chains_the_older_use_or_the_older_entry_goes(spec: EvictionSpec, gone: list[object]) -> None:
    told = Told(policy(spec))
    told.use((A, 2))
    told.use((B, 2))
    told.use((A, 2))
    assert told.use((C, 2)) == gone


def test_what_is_used_often_outlives_what_was_used_last() -> None:
    told = Told(policy(LfuSpec()))
    for key in (A, A, A, B):
        told.use((key, 2))
    assert told.use((C, 2)) == [B]


def test_adaptive_replacement_keeps_what_was_used_again_from_a_scan() -> None:
    # A is used twice and lies in the second part; B, C and D come once and push each other out.
    told = Told(policy(ArcSpec()))
    for key in (A, A, B):
        told.use((key, 2))
    assert told.use((C, 2)) == [B]
    assert told.use((4, 2)) == [C]


def test_adaptive_replacement_keeps_more_of_what_came_once_if_that_is_regretted() -> None:
    # B and C come back right after they had to go: the first part may hold 2, then 4 blocks, so A goes next.
    told = Told(policy(ArcSpec()))
    for key in (A, A, B, C, B, C):
        told.use((key, 2))
    assert told.use((4, 1)) == [A]


def test_time_to_live_drops_what_still_has_room() -> None:
    told = Told(policy(TtlSpec(ttl_s=5)))
    told.use((A, 2))
    assert told.store.expire(5.9) == []
    assert [gone.span for gone in told.store.expire(6.0)] == [(0, 2)]
    told.store.check()


def test_the_dearest_to_compute_again_stays() -> None:
    # Behind 20 blocks that HBM has, 2 of A are worth 5 s to compute again; 2 of B behind none are worth 1 s.
    told = Told(policy(CostAwareSpec()))
    told.store.complete(((A, 22),), told.store.insert(((A, 22),), (20, 22), told.store.use(0.0))[0])
    told.use((B, 2))
    assert told.use((C, 2)) == [B]


def test_what_follows_a_run_goes_before_it() -> None:
    # First in, A is first out; but without it B could not be hit, so B goes first.
    told = Told(policy(FifoSpec()))
    told.use((A, 2))
    told.use((A, 2), (B, 2))
    assert told.use((C, 2)) == [B]


def test_ends_go_before_beginnings() -> None:
    # B lies 2 blocks deep: its use counts as 2 x 2 uses older than it is.
    told = Told(policy(PositionAwareSpec(uses_per_block=2.0)), capacity=6)
    told.use((C, 2))
    told.use((A, 2), (B, 2))
    assert told.use((4, 2)) == [B]


def test_a_conversation_that_came_back_is_kept_longer() -> None:
    told = Told(policy(TurnAwareSpec(alive_s=10)))
    told.use((A, 2), turn=1)
    told.use((B, 2))
    assert told.use((C, 2)) == [B]


def test_what_attention_looks_at_least_goes_first() -> None:
    told = Told(policy(AttentionImportanceSpec(scores={A: 5.0, B: 1.0, C: 2.0})))
    told.use((A, 2))
    told.use((B, 2))
    assert told.use((C, 2)) == [B]


def test_importance_without_scores_follows_the_power_law() -> None:
    # A quarter of all content is more important than 2 with exponent 2: 2 ** -2.
    eviction = policy(AttentionImportanceSpec(exponent=2.0))
    store = TierStore("dram", 10_000, eviction)
    for key in range(2000):
        store.insert(((key, 1),), (0, 1), store.use(0.0))
    ranks = np.array([run.rank[0] for run in store.tree.root.children.values()])
    assert ranks.min() >= 1.0
    assert np.mean(ranks > 2) == pytest.approx(0.25, abs=0.03)


def test_chance_takes_runs_in_proportion_to_their_blocks_however_old_they_are() -> None:
    # Old A has 1 block, young B 3: A goes in a quarter of the cases.
    gone: Counter[object] = Counter()
    for seed in range(2000):
        told = Told(policy(RandomEvictionSpec(), seed))
        told.use((A, 1))
        told.use((B, 3))
        gone[told.use((C, 1))[0]] += 1
    assert gone[A] / 2000 == pytest.approx(0.25, abs=0.03)
