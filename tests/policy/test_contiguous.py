"""Contiguous reservation: what is reserved, who is admitted, and what compaction copies."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.errors import InfeasibleError, InvariantError
from simllm.sim.policy.kv.allocators import AllocatorName
from simllm.sim.policy.kv.blocks import NO_HIT
from simllm.sim.policy.kv.contiguous import (
    NO_ROOM,
    ContiguousKvCache,
    Reserve,
    check_contiguous,
    reserved_slots,
)
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.policy.moves import Move, When
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import Request


def cache(
    num_slots: int = 100,
    *,
    allocator: AllocatorName = "first_fit",
    reserve: Reserve = "oracle",
    compaction: bool = False,
    max_model_len: int = 100,
) -> ContiguousKvCache:
    return ContiguousKvCache(
        num_slots=num_slots,
        allocator=allocator,
        reserve=reserve,
        compaction=compaction,
        max_model_len=max_model_len,
        slot_bytes=1000,
    )


def live(prompt_tokens: int, output_tokens: int) -> LiveRequest:
    return LiveRequest(Request(0, 0.0, prompt_tokens, output_tokens), output_tokens)


def admit(kv: ContiguousKvCache, request: LiveRequest) -> LiveRequest:
    kv.admit(request, kv.lookup(request), request.prompt_tokens)
    request.num_computed = request.prompt_tokens
    return request


@pytest.mark.parametrize(("reserve", "slots"), [("max", 2048), ("pow2", 132), ("oracle", 125)])
def test_100_prompt_and_25_output_tokens_reserve(reserve: Reserve, slots: int) -> None:
    # PagedAttention section 6.1: 25 output tokens reserve 32 under Pow2.
    assert reserved_slots(reserve, 100, 25, 2048) == slots


@pytest.mark.parametrize("reserve", get_args(Reserve))
def test_columns_of_requests_reserve_what_each_one_does(reserve: Reserve) -> None:
    prompts, outputs = np.array([1, 100, 900, 7]), np.array([1, 25, 600, 64])
    column = reserved_slots(reserve, prompts, outputs, 1000)
    rows = [reserved_slots(reserve, int(p), int(o), 1000) for p, o in zip(prompts, outputs, strict=True)]
    assert np.asarray(column).tolist() == rows


def test_two_requests_of_2048_reserved_slots_fill_4096_and_a_third_waits() -> None:
    # Orca: it waits even if it would fit by its real length.
    kv = cache(4096, reserve="max", max_model_len=2048)
    admit(kv, live(10, 5))
    admit(kv, live(10, 5))
    assert kv.lookup(live(10, 5)) is NO_ROOM
    assert (kv.num_free, kv.num_reserved) == (4076, 4096)


def test_a_request_grows_into_its_own_region_and_no_further() -> None:
    kv = cache()
    first = admit(kv, live(40, 10))
    kv.take(10)
    with pytest.raises(InvariantError, match="filled 51 slots with 50 reserved"):
        kv.take(1)
    first.num_computed = 51
    kv.release(first, is_finished=True)
    assert kv.num_free == 100


def test_compaction_copies_what_has_moved_before_the_step() -> None:
    # 40 + 40 of 100 slots; the first leaves, and 55 fit only once the second has slid to the front.
    kv = cache(compaction=True)
    first, second = admit(kv, live(30, 10)), admit(kv, live(30, 10))
    kv.release(first, is_finished=True)
    assert cache_without_compaction_is_stuck()
    admit(kv, live(50, 5))
    # The second holds 40 slots, all that is reserved, of which 30 are filled: 30 * 1000 bytes in one piece.
    assert kv.moves == [Move("hbm", "hbm", 30_000, 1, When.BEFORE)]
    second.num_computed = 30
    kv.release(second, is_finished=True)
    assert kv.lookup(live(30, 10)) is NO_HIT


def cache_without_compaction_is_stuck() -> bool:
    kv = cache()
    first, _ = admit(kv, live(30, 10)), admit(kv, live(30, 10))
    kv.release(first, is_finished=True)
    return kv.lookup(live(50, 5)) is NO_ROOM


def test_a_model_length_that_no_region_holds_is_refused_with_the_sizes() -> None:
    check_contiguous("first_fit", num_slots=3000, max_model_len=3000)
    with pytest.raises(
        InfeasibleError, match=r"max_model_len 2049 tokens reserves 4096 .* 3000 slots is 2048"
    ):
        check_contiguous("buddy", num_slots=3000, max_model_len=2049)


LAYOUTS = st.sampled_from(
    [
        (allocator, reserve, compaction)
        for allocator in get_args(AllocatorName)
        for reserve in get_args(Reserve)
        for compaction in (False, allocator != "buddy")
    ]
)
REQUESTS = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 50), st.integers(1, 40)), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=40)
@given(rows=REQUESTS, layout=LAYOUTS, is_async=st.booleans())
def test_every_request_ends_and_leaps_change_nothing(
    rows: list[tuple[float, int, int]], layout: tuple[AllocatorName, Reserve, bool], is_async: bool
) -> None:
    allocator, reserve, _ = layout  # moves take no time here: nobody times them
    spec = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, max_model_len=100, async_scheduling=is_async)
    model = ToyStepModel(base_s=math.pi / 300, token_s=0.0007, context_s=1.3e-5)
    records = [
        play(
            make_demand(sorted(rows)),
            spec=spec,
            model=model,
            leaps=leaps,
            checks_blocks=True,
            make_kv=lambda: cache(256, allocator=allocator, reserve=reserve),
        )[0]
        for leaps in (True, False)
    ]
    leapt, plain = records
    np.testing.assert_allclose(request_rows(leapt), request_rows(plain), rtol=1e-9)
    np.testing.assert_allclose(step_rows(leapt), step_rows(plain), rtol=1e-9, atol=1e-12)
    assert not np.isnan(np.asarray(plain.finished_at)).any()
    assert not any(plain.num_preemptions), "who is admitted has what it will fill"
