"""TGI's rules one by one, each with numbers worked out by hand.

Source: TGI router/src/{queue,infer}.rs at v0.8.2; backends/v2/src at v2.4.1; backends/v3/src at v3.3.7.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.scheduler.tgi import TgiScheduler, TgiSpec

from .drive import Story, admitted, chunks
from .engine_laws import Rows, check_laws, loads


def story(version: str, num_tokens: int = 100_000, block_size: int = 1, **fields: object) -> Story:
    spec = TgiSpec(version=version).model_copy(update=fields)  # type: ignore[arg-type]
    return Story(spec, num_blocks=num_tokens // block_size, block_size=block_size)


def test_a_prompt_of_100_with_an_answer_of_50_keeps_149_slots_for_life() -> None:
    # The last token's KV is never computed: 100 + 50 - 1. Two fit into 298 slots, not into 297.
    for num_slots, num_running in ((298, 2), (297, 1)):
        it = story("v3", num_slots)
        it.add(100, 50)
        it.add(100, 50)
        assert len(admitted(it.run())) == num_running
    # And to the end: 48 decode steps later the second one still waits.
    assert admitted(it.run(48)) == []
    it.run()
    assert admitted(it.run()) == [1]


def test_what_clients_ask_for_is_kept_not_what_answers_become() -> None:
    it = story("v3", 298, max_new_tokens=150)
    it.add(100, 50)
    it.add(20, 29)
    assert admitted(it.run()) == [0]  # 249 and 169 tokens


def test_in_2023_half_the_cache_is_left_for_the_copy() -> None:
    # 300 slots: 150 tokens of prompts and answers, counted whole.
    it = story("2023-06", 300)
    it.add(50, 25)
    it.add(50, 25)
    it.add(1, 1)
    assert admitted(it.run()) == [0, 1]


def test_before_v3_new_prompts_pause_the_decodes_and_all_go_on_together() -> None:
    it = story("v2")
    it.add(100, 50)
    it.run(2)
    it.add(300, 50)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count, batch.stalls_decodes) == ([(300, 0)], 0, True)
    it.add(300, 50)  # it comes too late: both batches decode first
    assert it.run().decodes.count == 2
    assert chunks(it.run()) == [(300, 0)]


def test_in_v3_prompts_fill_the_budget_beside_decodes_and_are_split() -> None:
    it = story("v3", max_batch_prefill_tokens=128)
    it.add(10, 50)
    it.run(2)
    it.add(100, 50)
    it.add(100, 50)
    # 128 less one decode: 100 and 27; then the rest of 73 beside two decodes, in a step that asks nobody.
    batch = it.run()
    assert (chunks(batch), batch.decodes.count) == ([(100, 0), (27, 0)], 1)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count) == ([(73, 27)], 2)


def test_few_waiting_requests_are_let_in_after_20_steps_enough_of_them_at_once() -> None:
    # 10 run: floor(10 * 1.2) = 12 must wait to pause them.
    for num_waiting, num_steps in ((11, 20), (12, 1)):
        it = story("2023-06")
        for _ in range(10):
            it.add(10, 60)
        it.run()
        for _ in range(num_waiting):
            it.add(10, 60)
        steps = [admitted(it.run()) for _ in range(num_steps)]
        assert [len(step) for step in steps] == [0] * (num_steps - 1) + [num_waiting]


def test_a_new_batch_too_small_for_the_ratio_is_put_back_whole() -> None:
    # 12 wait, but memory is left for 11 of them: 220 = (10 + 1) x 20 of a total of 420 with 200 taken.
    it = story("2023-06", max_batch_total_tokens=420)
    for _ in range(10):
        it.add(10, 10)
    it.run()
    for _ in range(12):
        it.add(10, 10)
    assert admitted(it.run()) == []
    assert it.scheduler.num_waiting == 12


def test_v2_counts_whole_blocks_of_prompts_and_of_answers() -> None:
    # 17 -> 32 and 5 -> 16 tokens in blocks of 16: 48 each, of 144 three, though 17 + 4 tokens fill 2 blocks.
    it = story("v2", 144, block_size=16)
    for _ in range(4):
        it.add(17, 5)
    assert len(admitted(it.run())) == 3
    assert it.num_used == 6


def test_v2_takes_no_more_prompts_than_its_prefill_budget() -> None:
    it = story("v2", max_batch_prefill_tokens=100)
    for prompt_tokens in (60, 40, 10):
        it.add(prompt_tokens, 5)
    assert chunks(it.run()) == [(60, 0), (40, 0)]
    assert it.add(101, 5) == "exceeds_token_budget"


def test_a_full_server_refuses() -> None:
    it = story("v3", max_concurrent_requests=2)
    assert [it.add(10, 5), it.add(10, 5), it.add(10, 5)] == [None, None, "overloaded"]


@pytest.mark.parametrize("version", ["2023-06", "v2", "v3"])
def test_a_request_that_never_fits_is_refused(version: str) -> None:
    it = story(version, 200, block_size=4)
    assert it.add(150, 60) == "exceeds_kv_cache"
    assert isinstance(it.scheduler, TgiScheduler)


@given(
    rows=loads(),
    version=st.sampled_from(["2023-06", "v2", "v3"]),
    ratio=st.sampled_from([0.0, 0.3, 1.2]),
    max_waiting_tokens=st.integers(0, 20),
    prefill_tokens=st.integers(60, 120),
    num_blocks=st.integers(60, 120),
    caches=st.booleans(),
)
def test_laws_hold_under_random_load(
    rows: Rows,
    version: str,
    ratio: float,
    max_waiting_tokens: int,
    prefill_tokens: int,
    num_blocks: int,
    caches: bool,
) -> None:
    spec = TgiSpec(
        version=version,  # type: ignore[arg-type]
        waiting_served_ratio=ratio,
        max_waiting_tokens=max_waiting_tokens,
        max_batch_prefill_tokens=prefill_tokens,
    )
    check_laws(rows, spec, num_blocks=num_blocks, block_size=4, caches=caches and version == "v3")
