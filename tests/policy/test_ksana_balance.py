"""KsanaLLM's balancer of pipeline batches, each rule with numbers worked out by hand.

Source: KsanaLLM src/ksana_llm/batch_scheduler/workload_balance/pp_multibatch_balancer.cpp, commit c451219c.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.scheduler.ksana_balance import excess, place, request_load, to_give

LOADS = st.lists(st.integers(1, 50), max_size=12)


def test_a_batch_of_30_beside_10_and_20_may_give_10() -> None:
    # The ideal is 60 / 3 = 20, the threshold 1.2 * 20 = 24.
    assert [excess((30, 10, 20), batch, num_requests=9) for batch in range(3)] == [10, 0, 0]


@pytest.mark.parametrize(("loads", "num_requests"), [((24, 16, 20), 9), ((30, 10, 20), 4), ((30,), 9)])
def test_nothing_moves_from_a_small_batch_or_one_that_is_not_far_above_the_mean(
    loads: tuple[int, ...], num_requests: int
) -> None:
    assert excess(loads, 0, num_requests=num_requests) == 0


def test_the_ideal_load_is_rounded_up() -> None:
    # 61 / 3 -> 21, the threshold is 25: 31 may give 10.
    assert excess((31, 10, 20), 0, num_requests=5) == 10


def test_requests_go_to_the_batch_with_the_least_load_by_then() -> None:
    assert place((5, 5, 5, 1), (8, 0)) == [1, 1, 0, 1]


def test_the_waiting_go_first_and_decodes_only_when_none_is_left() -> None:
    assert to_give((4, 4, 4), (1, 1), 10) == (2, 0)
    assert to_give((4, 4), (1, 9, 1, 1), 12) == (2, 2)  # 8, and from the tail 1 + 1; 9 more would be too much


@pytest.mark.parametrize(
    ("strategy", "load"), [("static", 1), ("count", 1), ("tokens", 1000 // 200 + 1), ("uncached", 300)]
)
def test_a_load_is_a_request_or_its_tokens(strategy: str, load: int) -> None:
    assert request_load(strategy, num_tokens=1000, num_cached=700) == load  # type: ignore[arg-type]


def test_a_request_with_all_its_kv_counts_as_one_token() -> None:
    assert request_load("uncached", num_tokens=700, num_cached=700) == 1


@given(LOADS, LOADS, st.integers(0, 100))
def test_no_more_goes_than_may(waiting: list[int], decoding: list[int], most: int) -> None:
    num_waiting, num_decoding = to_give(waiting, decoding, most)
    tail = decoding[len(decoding) - num_decoding :]
    assert sum(waiting[:num_waiting]) + sum(tail) <= most
