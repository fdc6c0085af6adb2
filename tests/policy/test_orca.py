"""Orca's rules one by one, each with numbers worked out by hand.

Source: Orca (OSDI 2022) section 4.2, algorithm 1; PagedAttention (arXiv 2309.06180) section 6.1.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.kv.contiguous import ContiguousKvCache
from simllm.sim.policy.scheduler.orca import OrcaScheduler, OrcaSpec
from simllm.sim.request import Request

from .drive import Story, admitted, chunks
from .engine_laws import Rows, check_laws, loads


def spec(**fields: object) -> OrcaSpec:
    return OrcaSpec(max_model_len=2048).model_copy(update=fields)


def story(spec: OrcaSpec, num_slots: int = 4096) -> Story:
    return Story(spec, num_blocks=num_slots, block_size=1)


def test_of_4096_slots_two_requests_reserve_2048_each_and_the_third_waits_however_short() -> None:
    it = story(spec())
    for _ in range(3):
        it.add(10, 5)
    assert admitted(it.run()) == [0, 1]
    assert it.scheduler.num_waiting == 1
    assert [admitted(it.run()) for _ in range(4)] == [[]] * 4
    # Both have ended after 5 tokens; their slots are free at once.
    assert admitted(it.run()) == [2]


@pytest.mark.parametrize(("reservation", "num_running"), [("max", 1), ("pow2", 3), ("oracle", 4)])
def test_less_is_reserved_the_more_is_known(reservation: str, num_running: int) -> None:
    # 500 slots of max_model_len 400: 400, 100 + 32 (the power of two from 25 on), or 100 + 25 each.
    it = story(spec(reservation=reservation, max_model_len=400), 500)
    for _ in range(5):
        it.add(100, 25)
    assert len(admitted(it.run())) == num_running


def test_whole_prompts_run_beside_decodes_in_one_iteration() -> None:
    it = story(spec())
    it.add(100, 50)
    it.run(2)
    it.add(700, 50)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count) == ([(700, 0)], 1)


def test_the_first_that_does_not_fit_holds_up_all_behind_it() -> None:
    it = story(spec(reservation="oracle"), 1000)
    it.add(400, 100)
    it.add(600, 100)  # 500 slots are left
    it.add(10, 10)
    assert admitted(it.run()) == [0]


def test_a_batch_holds_max_batch_size_requests() -> None:
    it = story(spec(max_batch_size=2, reservation="oracle"))
    for _ in range(3):
        it.add(10, 10)
    assert admitted(it.run()) == [0, 1]


def test_a_request_larger_than_all_slots_is_refused() -> None:
    it = story(spec(reservation="oracle"), 100)
    assert it.add(80, 30) == "exceeds_kv_cache"
    assert it.add(80, 20) is None


def test_slots_enough_but_in_two_holes_admit_nobody() -> None:
    # 30 slots: regions of 10, 10 and 10; the outer two end, and 20 free slots hold no region of 20.
    kv = ContiguousKvCache(
        num_slots=30,
        allocator="first_fit",
        reserve="oracle",
        compaction=False,
        max_model_len=30,
        slot_bytes=1.0,
    )
    scheduler = OrcaScheduler(spec(reservation="oracle", max_model_len=30), kv=kv, max_model_len=30)
    for index, output_tokens in enumerate((2, 5, 2)):
        scheduler.add(Request(index, 0.0, 10 - output_tokens, output_tokens))
    for _ in range(2):
        batch = scheduler.schedule()
        assert batch is not None
        scheduler.finish(batch.finishing)
    scheduler.add(Request(3, 0.0, 15, 5))
    waiting = scheduler.schedule()
    assert waiting is not None and not waiting.admitted
    scheduler.check()


@given(
    rows=loads(),
    max_batch_size=st.integers(1, 6),
    reservation=st.sampled_from(["max", "pow2", "oracle"]),
    num_slots=st.integers(110, 400),
)
def test_laws_hold_under_random_load(
    rows: Rows, max_batch_size: int, reservation: str, num_slots: int
) -> None:
    orca = spec(max_batch_size=max_batch_size, reservation=reservation, max_model_len=110)
    check_laws(rows, orca, num_blocks=num_slots, block_size=1)
