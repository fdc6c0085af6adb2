"""TensorRT-LLM's rules one by one, each with numbers worked out by hand.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/{capacityScheduler,microBatchScheduler}.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
from harness import play, request_rows, step_rows
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simllm.sim.policy.kv.block_reuse import BlockReuse
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.scheduler import scheduler_settings
from simllm.sim.policy.scheduler.trtllm import TrtllmScheduler, TrtllmSpec
from simllm.sim.policy.scheduler.trtllm_chunks import equal_progress, first_come_first_served
from simllm.sim.request import ContentRun, Request
from simllm.sim.workload.demand import Demand

from .drive import Story, admitted, chunks
from .engine_laws import MODEL, Rows, check_laws, loads

SPEC = TrtllmSpec(disable_overlap_scheduler=True)


def spec(**fields: object) -> TrtllmSpec:
    return SPEC.model_copy(update=fields)


def story(num_blocks: int = 10_000, block_size: int = 32, **fields: object) -> Story:
    return Story(spec(**fields), num_blocks=num_blocks, block_size=block_size)


def test_first_come_first_served_gives_700_and_then_288_of_the_300_left() -> None:
    assert first_come_first_served([700, 700], 1000, 32) == [700, 288]
    # The 12 left are no whole unit of a third prompt, but all that a short fourth one lacks.
    assert first_come_first_served([700, 700, 700, 10], 1000, 32) == [700, 288, 0, 10]


def test_equal_progress_gives_each_prompt_a_unit_in_turn() -> None:
    assert equal_progress([700, 700], 1000, 32) == [512, 480]
    assert equal_progress([40, 700], 1000, 32) == [40, 700]


def test_of_100_blocks_of_32_one_request_of_1000_in_and_1000_out_takes_63_and_the_second_waits() -> None:
    it = story(100)
    it.add(1000, 1000)
    it.add(1000, 1000)
    assert admitted(it.run()) == [0]
    assert it.num_used == 32  # only what is computed: 1,000 tokens; 63 are promised
    it = story(126)
    it.add(1000, 1000)
    it.add(1000, 1000)
    assert admitted(it.run()) == [0, 1]


def test_nobody_passes_the_first_request_that_does_not_fit() -> None:
    it = story(100)
    it.add(1000, 1000)
    it.add(1000, 1000)
    it.add(10, 10)
    assert admitted(it.run()) == [0]
    assert it.scheduler.num_waiting == 2


def test_max_utilization_starts_whoever_fits_into_the_next_step() -> None:
    # 32 blocks for each prompt of 1,000: three fit into 100.
    it = story(100, capacity_scheduler_policy="MAX_UTILIZATION")
    for _ in range(4):
        it.add(1000, 1000)
    assert admitted(it.run()) == [0, 1, 2]


def test_max_utilization_pauses_the_last_one_which_keeps_its_place_in_the_list() -> None:
    # Blocks of 4: two prompts of 8 fill 4 of 5 blocks; both need one more at once, and one is left.
    it = story(5, 4, capacity_scheduler_policy="MAX_UTILIZATION")
    it.add(8, 9)
    it.add(8, 9)
    it.run()
    it.add(2, 2)
    batch = it.run()
    assert (batch.num_preempted, [live.index for live in batch.paused]) == (1, [1])
    scheduler = it.scheduler
    assert isinstance(scheduler, TrtllmScheduler)
    # The paused one is looked at before the one that came after it, which would fit.
    assert [live.index for live in scheduler._waiting] == [1, 2]
    assert admitted(it.run()) == []
    # When the first has ended (8 + 8 tokens), the paused one computes prompt and first token again.
    it.run(6)
    batch = it.run()
    assert (admitted(batch), chunks(batch)) == ([1, 2], [(9, 0), (2, 0)])


def test_static_batch_starts_nobody_while_others_generate() -> None:
    it = story(capacity_scheduler_policy="STATIC_BATCH")
    it.add(100, 3)
    it.add(100, 5)
    it.run(2)
    it.add(100, 5)
    assert [admitted(it.run()) for _ in range(3)] == [[]] * 3
    assert admitted(it.run()) == [2]


def test_without_chunks_a_prompt_that_does_not_fit_whole_ends_the_step() -> None:
    it = story(max_num_tokens=1000, max_batch_size=64)
    for prompt_tokens in (700, 700, 100):
        it.add(prompt_tokens, 50)
    assert chunks(it.run()) == [(700, 0)]
    assert (chunks(it.run()), it.scheduler.num_waiting) == ([(700, 0), (100, 0)], 0)
    assert it.add(1001, 5) == "exceeds_token_budget"


def test_chunks_are_whole_blocks_beside_decodes() -> None:
    it = story(max_num_tokens=1002, max_batch_size=64, enable_chunked_prefill=True)
    it.add(10, 50)
    it.add(20, 50)
    it.run()
    it.add(700, 50)
    it.add(700, 50)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count) == ([(700, 0), (288, 0)], 2)
    assert chunks(it.run()) == [(412, 288)]


def test_a_prompt_waits_a_step_for_the_block_that_another_one_computes() -> None:
    kv = PrefixKvCache(num_blocks=100, block_size=32, reuse=BlockReuse(is_partial=False, at_once=False))
    scheduler = TrtllmScheduler(SPEC, kv=kv, max_model_len=4096)
    for index in range(2):
        content = (ContentRun(7, 64), ContentRun(100 + index, 10))
        scheduler.add(Request(index, 0.0, 74, 5, content))
    scheduler.add(Request(2, 0.0, 74, 5))  # shares nothing and passes
    first, second = scheduler.schedule(), scheduler.schedule()
    assert first is not None and second is not None
    assert (admitted(first), admitted(second)) == ([0, 2], [1])
    assert chunks(second) == [(10, 64)]


def test_without_packing_prompts_are_padded_to_the_longest() -> None:
    it = story(remove_input_padding=False)
    it.add(100, 5)
    it.add(300, 5)
    batch = it.run()
    assert batch.computed is not None and batch.computed.chunks == ((300, 0, 2),)
    assert (batch.num_tokens, batch.computed.num_tokens) == (400, 600)
    assert it.run().computed is None


def test_the_policies_have_names_of_their_own() -> None:
    assert scheduler_settings("trtllm_max_utilization") == {
        "kind": "trtllm",
        "capacity_scheduler_policy": "MAX_UTILIZATION",
    }
    assert {"trtllm_guaranteed_no_evict", "trtllm_static_batch"} <= set(TrtllmSpec.variants)


@pytest.mark.parametrize(
    "off", ["remove_input_padding", "use_context_fmha", "paged_kv_cache", "gpt_attention_plugin"]
)
def test_chunked_prefill_needs_all_four_switches(off: str) -> None:
    with pytest.raises(ValidationError, match="enable_chunked_prefill needs"):
        TrtllmSpec.model_validate({"enable_chunked_prefill": True, off: False})


@given(
    rows=loads(),
    policy=st.sampled_from(["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]),
    chunking=st.sampled_from([None, "FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS"]),
    max_batch_size=st.integers(1, 8),
    max_num_tokens=st.integers(8, 120),
    num_blocks=st.integers(26, 45),
    overlaps=st.booleans(),
    caches=st.booleans(),
)
def test_laws_hold_under_random_load(
    rows: Rows,
    policy: str,
    chunking: str | None,
    max_batch_size: int,
    max_num_tokens: int,
    num_blocks: int,
    overlaps: bool,
    caches: bool,
) -> None:
    trtllm = spec(
        capacity_scheduler_policy=policy,
        enable_chunked_prefill=chunking is not None,
        context_chunking_policy=chunking or "FIRST_COME_FIRST_SERVED",
        max_batch_size=max_batch_size,
        max_num_tokens=max_num_tokens,
        disable_overlap_scheduler=not overlaps,
    )
    check_laws(rows, trtllm, num_blocks=num_blocks, block_size=4, caches=caches)


@given(
    texts=st.lists(
        st.tuples(
            st.integers(0, 500), st.integers(0, 2), st.integers(1, 40), st.integers(1, 20), st.integers(1, 40)
        ),
        min_size=2,
        max_size=12,
    ),
    policy=st.sampled_from(["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]),
    is_chunked=st.booleans(),
    is_partial=st.booleans(),
    num_blocks=st.integers(26, 60),
)
def test_laws_hold_where_prompts_are_shared_and_reused(
    texts: list[tuple[int, int, int, int, int]],
    policy: str,
    is_chunked: bool,
    is_partial: bool,
    num_blocks: int,
) -> None:
    # Arrival [ms], whose text it begins with, how much of it, its own tokens, its answer.
    texts.sort()
    contents = [
        (ContentRun(family, shared), ContentRun(100 + index, own))
        for index, (_, family, shared, own, _) in enumerate(texts)
    ]
    at, _, shared, own, outputs = (np.array(column) for column in zip(*texts, strict=True))
    demand = Demand(at / 1000, shared + own, outputs, contents=contents)
    settings = spec(
        capacity_scheduler_policy=policy,
        enable_chunked_prefill=is_chunked,
        max_batch_size=5,
        max_num_tokens=80,
    )
    reuse = BlockReuse(is_partial=is_partial, at_once=False)
    runs = [
        play(
            demand,
            spec=settings,
            model=MODEL,
            leaps=leaps,
            checks_blocks=True,
            make_kv=lambda: PrefixKvCache(num_blocks=num_blocks, block_size=4, reuse=reuse),
        )[0]
        for leaps in (True, False)
    ]
    for rows_of in (request_rows, step_rows):
        np.testing.assert_allclose(*map(rows_of, runs), rtol=1e-9, atol=1e-9)
    assert not np.isnan(np.asarray(runs[0].finished_at, dtype=float)).any()
