"""Routers decide from what a front end can know; each choice is worked out by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.router import (
    AnyRouterSpec,
    ConductorSpec,
    LeastKvSpec,
    LeastOutstandingSpec,
    PowerOfTwoSpec,
    PrefixAwareSpec,
    RandomSpec,
    Refusal,
    RoundRobinSpec,
    SessionAffinitySpec,
    WeightedSpec,
    make_router,
)
from simllm.sim.policy.router.prefix_aware import SentPrefixes
from simllm.sim.request import ContentRun, Request
from simllm.sim.world.recorder import Status

REQUEST = Request(0, 0.0, 100, 10)


@dataclass
class View:
    """A cluster as a router sees it; a prompt's token takes 1 ms."""

    num_outstanding: list[int]
    kv: list[float] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    now: float = 0.0

    gone: tuple[int, ...] = ()

    @property
    def serving(self) -> list[int]:
        return [replica for replica in range(len(self.num_outstanding)) if replica not in self.gone]

    def kv_use(self, replica: int) -> float:
        return self.kv[replica]

    def cached_tokens(self, replica: int, request: Request) -> int:
        return self.cached[replica]

    def prefill_s(self, replica: int, num_tokens: int, context_tokens: int) -> float:
        return 0.001 * num_tokens


def picks(spec: AnyRouterSpec, view: View, num_picks: int, seed: int = 0) -> list[int]:
    router = make_router(spec, np.random.default_rng(seed))
    picked = [router.pick(REQUEST, view) for _ in range(num_picks)]
    return [one for one in picked if not isinstance(one, Refusal)]


def prompt(index: int, *content: tuple[int, int], session: int = -1) -> Request:
    runs = tuple(ContentRun(*run) for run in content)
    return Request(index, 0.0, sum(size for _, size in runs) or 100, 10, runs or None, session)


def test_round_robin_takes_each_replica_in_turn() -> None:
    assert picks(RoundRobinSpec(), View([9, 0, 0]), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_least_outstanding_takes_the_first_of_the_idlest() -> None:
    assert picks(LeastOutstandingSpec(), View([3, 1, 2, 1]), 2) == [1, 1]


def test_least_kv_takes_the_emptiest_cache_of_equals_the_idlest() -> None:
    assert picks(LeastKvSpec(), View([0, 9, 3], kv=[0.5, 0.2, 0.2]), 1) == [2]


def test_random_is_even_and_repeats_with_its_seed() -> None:
    # 4,000 picks of 4: 1,000 each with a standard deviation of sqrt(4000 / 4 * 3 / 4) = 27.
    drawn = picks(RandomSpec(), View([0] * 4), 4000)
    assert all(abs(count - 1000) < 5 * 27 for count in Counter(drawn).values())
    assert drawn == picks(RandomSpec(), View([0] * 4), 4000)
    assert drawn != picks(RandomSpec(), View([0] * 4), 4000, seed=1)


def test_the_idlest_of_two_at_random_is_never_the_busiest_of_all() -> None:
    drawn = Counter(picks(PowerOfTwoSpec(), View([5, 1, 2, 9]), 3000))
    assert drawn[3] == 0
    # Replica 1 wins whenever it is drawn: 3 of the 6 pairs.
    assert abs(drawn[1] - 1500) < 5 * (3000 * 0.5 * 0.5) ** 0.5
    assert picks(PowerOfTwoSpec(), View([4]), 2) == [0, 0]


def test_a_session_stays_where_it_is_and_few_move_when_a_replica_is_added() -> None:
    router = make_router(SessionAffinitySpec(), np.random.default_rng(0))
    sessions = [prompt(index, session=index) for index in range(2000)]
    four = [router.pick(request, View([0] * 4)) for request in sessions]
    assert four == [router.pick(request, View([0] * 4)) for request in sessions]
    assert min(Counter(four).values()) > 300  # 500 each, give or take the ring's unevenness
    five = [router.pick(request, View([0] * 5)) for request in sessions]
    # Whoever moves goes to the new replica, which gets about a fifth.
    moved = [after for before, after in zip(four, five, strict=True) if before != after]
    assert set(moved) == {4}
    assert 200 < len(moved) < 650


def test_bounded_loads_pass_a_session_on_when_its_replica_is_full() -> None:
    request = prompt(0, session=7)
    home = make_router(SessionAffinitySpec(), np.random.default_rng(0)).pick(request, View([0, 0, 0]))
    assert isinstance(home, int)
    loads = [0, 0, 0]
    loads[home] = 9
    # The mean would be 10 / 3; 10 is more than 1.25 times that.
    bounded = make_router(SessionAffinitySpec(load_factor=1.25), np.random.default_rng(0))
    assert bounded.pick(request, View(loads)) != home


def test_the_longest_cached_prefix_wins_while_loads_are_even() -> None:
    exact = PrefixAwareSpec(index="exact", balance_abs_threshold=10)
    router = make_router(exact, np.random.default_rng(0))
    request = prompt(0, (1, 100))
    assert router.pick(request, View([5, 9, 0], cached=[40, 80, 0])) == 1
    # Not worth it: 30 of 100 tokens are no more than the threshold of 0.3.
    assert router.pick(request, View([5, 9, 0], cached=[30, 0, 0])) == 2
    # Uneven: 20 - 0 > 10 and 20 > 1.5 * 0.
    assert router.pick(request, View([5, 20, 0], cached=[40, 80, 0])) == 2


def test_what_was_sent_is_remembered_by_its_beginning() -> None:
    router = make_router(PrefixAwareSpec(), np.random.default_rng(0))
    first = router.pick(prompt(0, (1, 80), (2, 20)), View([0, 0]))
    # 80 of 100 tokens were sent to the first; the other replica is idler but has none of them.
    assert router.pick(prompt(1, (1, 80), (3, 20)), View([1, 0])) == first == 0
    # Nothing known: to the replica that was sent fewest tokens.
    assert router.pick(prompt(2, (9, 100)), View([1, 0])) == 1


def test_remembered_prefixes_are_forgotten_oldest_first() -> None:
    sent = SentPrefixes(max_tokens=150)
    sent.note((ContentRun(1, 100),))
    sent.note((ContentRun(2, 100),))
    assert (sent.match((ContentRun(1, 100),)), sent.match((ContentRun(2, 60),)), sent.num_tokens) == (
        0,
        60,
        100,
    )


def test_the_weighted_score_weighs_prefix_kv_and_queue() -> None:
    # Replica 0: 0.8 - 0.9 - 4/2 = -2.1; replica 1: 0 - 0.1 - 0 = -0.1.
    view = View([4, 0], kv=[0.9, 0.1], cached=[80, 0])
    assert picks(WeightedSpec(), view, 1) == [1]
    # With the prefix ten times as heavy: 8 - 0.9 - 2 = 5.1.
    assert picks(WeightedSpec(prefix_weight=10), view, 1) == [0]


def test_the_conductor_takes_the_shortest_predicted_ttft() -> None:
    router = make_router(ConductorSpec(), np.random.default_rng(0))
    view = View([0, 0], cached=[60, 0])
    # 40 ms against 100; then 40 + 40 against 100; then 80 + 40 against 100.
    assert [router.pick(REQUEST, view) for _ in range(3)] == [0, 0, 1]
    # 100 ms later all of it is computed.
    view.now = 0.1
    assert router.pick(REQUEST, view) == 0


def test_the_conductor_refuses_what_would_be_late_or_find_no_room() -> None:
    router = make_router(ConductorSpec(ttft_slo_ms=150, max_kv_use=0.9), np.random.default_rng(0))
    view = View([0], kv=[0.5], cached=[0])
    assert [router.pick(REQUEST, view) for _ in range(2)] == [0, "predicted_ttft_exceeds_slo"]
    view.now, view.kv = 9.0, [0.95]
    assert router.pick(REQUEST, view) == "kv_use_exceeds_limit"


def test_a_refused_request_ends_with_its_reason() -> None:
    router = make_router(ConductorSpec(ttft_slo_ms=25), np.random.default_rng(0))
    model = ToyStepModel(token_s=0.001)  # a step: 10 ms and 1 ms a token
    recorder, _ = play(make_demand([(0, 10, 5), (0.001, 20, 5)]), model=model, router=router)
    assert list(recorder.status) == [Status.FINISHED, Status.REJECTED]
    assert recorder.reasons == {1: "predicted_ttft_exceeds_slo"}


@pytest.mark.parametrize("spec", [LeastKvSpec(), WeightedSpec(), PrefixAwareSpec(index="exact")])
@given(
    gaps_ms=st.lists(st.integers(1, 400), min_size=2, max_size=20),
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=20, max_size=20),
)
def test_routers_see_the_same_in_the_middle_of_a_leap(
    spec: AnyRouterSpec, gaps_ms: list[int], lengths: list[tuple[int, int]]
) -> None:
    at = np.cumsum(gaps_ms) / 1000
    demand = make_demand([(float(t), *length) for t, length in zip(at, lengths, strict=False)])
    model = ToyStepModel(base_s=0.0100037, token_s=0.00100071, decode_s=0.000500113)
    rows = []
    for leaps in (True, False):
        router = make_router(spec, np.random.default_rng(0))
        recorder, _ = play(demand, model=model, router=router, num_replicas=3, leaps=leaps, caches=True)
        rows.append((request_rows(recorder), step_rows(recorder)))
    for leaping, plain in zip(*rows, strict=True):
        np.testing.assert_allclose(leaping, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "spec",
    [
        RoundRobinSpec(),
        RandomSpec(),
        LeastOutstandingSpec(),
        LeastKvSpec(),
        PowerOfTwoSpec(),
        SessionAffinitySpec(load_factor=1.0),
        PrefixAwareSpec(),
        WeightedSpec(),
        ConductorSpec(),
    ],
    ids=lambda spec: spec.kind,
)
def test_no_router_picks_a_replica_that_is_gone(spec: AnyRouterSpec) -> None:
    view = View([0, 5, 0, 6], kv=[0.0, 0.5, 0.0, 0.6], cached=[100, 0, 100, 0], gone=(0, 2))
    assert set(picks(spec, view, 8)) <= {1, 3}
