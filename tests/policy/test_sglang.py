"""SGLang's rules one by one, each with numbers worked out by hand.

Source: SGLang python/sglang/srt/managers/schedule_policy.py, scheduler.py, schedule_batch.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.policy.scheduler.sglang import NewTokenRatio, SglangScheduler, SglangSpec
from simllm.sim.policy.scheduler.sglang_order import in_order
from simllm.sim.request import ContentRun, Request

from .drive import Story, admitted, chunks
from .engine_laws import Rows, check_laws, loads

SPEC = SglangSpec(max_running_requests=64, chunked_prefill_size=2048, disable_overlap_schedule=True)


def spec(**fields: object) -> SglangSpec:
    return SPEC.model_copy(update=fields)


def story(spec: SglangSpec = SPEC, num_blocks: int = 100_000) -> Story:
    return Story(spec, num_blocks=num_blocks, block_size=1)


def live(index: int, prompt_tokens: int, output_tokens: int = 9, *content: tuple[int, int]) -> LiveRequest:
    runs = tuple(ContentRun(*run) for run in content) or None
    return LiveRequest(Request(index, 0.0, prompt_tokens, output_tokens, runs), output_tokens)


def test_the_ratio_is_0_399_after_300_decode_steps() -> None:
    # 0.7 at first, 0.098 at last after 600 steps: 0.7 - 300 * 0.602 / 600.
    ratio = NewTokenRatio(1.0)
    ratio.decay(300)
    assert ratio.current == pytest.approx(0.399)
    ratio.decay(400)
    assert ratio.current == pytest.approx(0.098)


def test_after_a_retraction_the_ratio_follows_what_the_rest_has_produced() -> None:
    # (100 + 50 + 2 * 20) / (1000 + 900 + 1)
    ratio = NewTokenRatio(1.0)
    ratio.estimate([(100, 1000), (50, 900)])
    assert ratio.current == pytest.approx(190 / 1901)


def test_the_gate_leaves_4400_of_10000_tokens_for_prompts_and_answers() -> None:
    # 4 running requests with 2,000 tokens to come: 10,000 - 4 * 2,000 * 0.7.
    it = story(num_blocks=10_400)
    for _ in range(4):
        it.add(100, 2001)
    it.run()  # each has its first token now: 2,000 to come, 400 tokens taken, 10,000 free
    scheduler = it.scheduler
    assert isinstance(scheduler, SglangScheduler)
    scheduler._join()  # as the next decision begins
    assert scheduler._free_memory() == pytest.approx(4400)
    # 2,400 + 1,999 + a page of 1 = 4,400 does not fit below 4,400; one token less does.
    it.add(2400, 1999)
    assert admitted(it.run()) == []
    other = story(num_blocks=10_400)
    for _ in range(4):
        other.add(100, 2001)
    other.run()
    other.add(2399, 1999)
    assert admitted(other.run()) == [4]


def test_prompts_run_alone_and_decodes_wait() -> None:
    it = story()
    it.add(100, 50)
    it.run(3)
    it.add(300, 50)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count, batch.stalls_decodes) == ([(300, 0)], 0, True)
    assert it.run().decodes.count == 2


def test_mixed_batches_take_decodes_along_and_off_the_budget() -> None:
    it = story(spec(enable_mixed_chunk=True, chunked_prefill_size=64))
    it.add(10, 50)
    it.run(2)
    it.add(300, 50)
    batch = it.run()
    assert (chunks(batch), batch.decodes.count) == ([(63, 0)], 1)


def test_a_prompt_that_exceeds_the_chunk_is_cut_and_goes_on_first() -> None:
    # 2048 = 1500 + 548; the rest of the second, 152, comes before the third.
    it = story()
    for prompt_tokens in (1500, 700, 700):
        it.add(prompt_tokens, 2)
    first, second = it.run(), it.run()
    assert (chunks(first), admitted(first)) == ([(1500, 0), (548, 0)], [0, 1])
    assert (chunks(second), admitted(second)) == ([(152, 548), (700, 0)], [2])


def test_without_chunks_the_first_prompt_may_exceed_the_limit_alone() -> None:
    it = story(spec(chunked_prefill_size=-1, max_prefill_tokens=1000))
    for prompt_tokens in (1500, 700):
        it.add(prompt_tokens, 2)
    assert [chunks(it.run()) for _ in range(2)] == [[(1500, 0)], [(700, 0)]]


def test_the_request_with_the_fewest_tokens_is_retracted_first_of_equals_the_longest() -> None:
    # Outputs (50, 10, 10), prompts (100, 200, 900): (10, 900), (10, 200), (50, 100).
    it = story(spec(max_new_tokens=None), num_blocks=2000)
    it.add(100, 400)
    it.run(40)
    for prompt_tokens in (200, 900):
        it.add(prompt_tokens, 60)
    it.run(10)
    scheduler = it.scheduler
    assert isinstance(scheduler, SglangScheduler)
    order = []
    for _ in range(3):
        victim = scheduler._next_victim()
        assert victim is not None
        order.append(victim.prompt_tokens)
        scheduler._preempt(victim)
    assert order == [900, 200, 100]


def test_the_longest_cached_prefix_comes_first_in_short_queues_only() -> None:
    queue = [live(0, 50), live(1, 50), live(2, 50)]
    cached = {queue[0]: 0, queue[1]: 40, queue[2]: 48}
    assert in_order("lpm", queue, cached.__getitem__) == [queue[2], queue[1], queue[0]]
    long = [live(index, 50) for index in range(129)]
    assert in_order("lpm", long, lambda one: one.index) == long


def test_of_requests_that_share_a_start_nobody_has_cached_one_goes_first() -> None:
    # 0 and 1 share 40 tokens, which 0 is to compute; 2 has nothing to wait for.
    queue = [
        live(0, 50, 9, (7, 40), (1, 10)),
        live(1, 50, 9, (7, 40), (2, 10)),
        live(2, 50, 9, (8, 50)),
    ]
    assert in_order("lpm", queue, lambda _: 0) == [queue[0], queue[2], queue[1]]


@given(
    rows=loads(),
    running=st.integers(1, 6),
    chunk=st.sampled_from([-1, 8, 16, 64]),
    policy=st.sampled_from(["fcfs", "lpm", "lof", "shortest-prefill-first"]),
    mixes=st.booleans(),
    overlaps=st.booleans(),
    conservativeness=st.sampled_from([0.1, 0.3, 1.0]),
    block_size=st.sampled_from([1, 4]),
    num_slots=st.integers(104, 170),
    caches=st.booleans(),
)
def test_it_keeps_the_laws_under_any_load(
    rows: Rows,
    running: int,
    chunk: int,
    policy: str,
    mixes: bool,
    overlaps: bool,
    conservativeness: float,
    block_size: int,
    num_slots: int,
    caches: bool,
) -> None:
    check_laws(
        rows,
        spec(
            max_running_requests=running,
            chunked_prefill_size=chunk,
            schedule_policy=policy,
            enable_mixed_chunk=mixes,
            disable_overlap_schedule=not overlaps,
            schedule_conservativeness=conservativeness,
        ),
        num_blocks=num_slots // block_size,
        block_size=block_size,
        caches=caches,
    )
