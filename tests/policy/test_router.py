"""Routers decide from counts alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from simllm.sim.policy.router import LeastOutstandingSpec, RandomSpec, RoundRobinSpec, RouterSpec, make_router
from simllm.sim.request import Request

REQUEST = Request(0, 0.0, 10, 10)


@dataclass(frozen=True)
class View:
    num_outstanding: list[int]


def picks(spec: RouterSpec, view: View, num_picks: int, seed: int = 0) -> list[int]:
    router = make_router(spec, np.random.default_rng(seed))
    return [router.pick(REQUEST, view) for _ in range(num_picks)]


def test_round_robin_takes_each_replica_in_turn() -> None:
    assert picks(RoundRobinSpec(), View([9, 0, 0]), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_least_outstanding_takes_the_first_of_the_idlest() -> None:
    assert picks(LeastOutstandingSpec(), View([3, 1, 2, 1]), 2) == [1, 1]


def test_random_is_even_and_repeats_with_its_seed() -> None:
    # 4,000 picks of 4: 1,000 each with a standard deviation of sqrt(4000 / 4 * 3 / 4) = 27.
    drawn = picks(RandomSpec(), View([0] * 4), 4000)
    assert all(abs(count - 1000) < 5 * 27 for count in Counter(drawn).values())
    assert drawn == picks(RandomSpec(), View([0] * 4), 4000)
    assert drawn != picks(RandomSpec(), View([0] * 4), 4000, seed=1)
