"""vLLM V1's rules one by one, each with numbers worked out by hand.

Source: vLLM vllm/v1/core/sched/scheduler.py, sched/async_scheduler.py, kv_cache_manager.py.
"""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec

from .drive import Story, admitted, chunks, finishing

SYNC = VllmV1Spec(max_num_seqs=64, max_num_batched_tokens=2048, async_scheduling=False)
ASYNC = SYNC.model_copy(update={"async_scheduling": True})


def sync(**fields: object) -> VllmV1Spec:
    return SYNC.model_copy(update=fields)


def test_a_prompt_gets_the_budget_that_decodes_leave() -> None:
    # 40 decodes leave 2048 - 40 = 2008 tokens: 5000 = 2008 + 2008 + 984.
    story = Story(SYNC)
    for _ in range(40):
        story.add(10, 100)
    story.run()
    story.add(5000, 2)
    batches = [story.run() for _ in range(3)]
    assert [chunks(batch) for batch in batches] == [[(2008, 0)], [(2008, 2008)], [(984, 4016)]]
    assert [(batch.decodes.count, batch.num_tokens) for batch in batches] == [
        (40, 2048),
        (40, 2048),
        (40, 1024),
    ]
    assert [batch.num_sampled for batch in batches] == [40, 40, 41]


def test_the_budget_is_shared_by_all_prompts_of_a_step() -> None:
    story = Story(SYNC)
    for prompt_tokens in (1500, 700, 700):
        story.add(prompt_tokens, 2)
    first, second = story.run(), story.run()
    assert (chunks(first), admitted(first)) == ([(1500, 0), (548, 0)], [0, 1])
    # Running before waiting: the rest of the second prompt comes before the third.
    assert (chunks(second), admitted(second)) == ([(152, 548), (700, 0)], [2])


def test_without_chunked_prefill_a_prompt_waits_for_a_step_that_holds_it_whole() -> None:
    story = Story(sync(enable_chunked_prefill=False))
    for prompt_tokens in (1500, 700, 100):
        story.add(prompt_tokens, 1)
    # Nobody overtakes the head of the queue, though the third prompt would fit beside the first.
    assert [chunks(story.run()) for _ in range(2)] == [[(1500, 0)], [(700, 0), (100, 0)]]


def test_a_long_prompt_gets_no_more_than_its_threshold_in_a_step() -> None:
    story = Story(sync(long_prefill_token_threshold=512))
    story.add(1200, 1)
    story.add(300, 1)
    assert [chunks(story.run()) for _ in range(3)] == [[(512, 0), (300, 0)], [(512, 512)], [(176, 1024)]]


def test_chunks_are_not_aligned_to_blocks() -> None:
    story = Story(sync(max_num_batched_tokens=100))
    story.add(150, 1)
    assert [(chunks(batch), batch.kv_blocks_used) for batch in (story.run(), story.step())] == [
        ([(100, 0)], 7),  # ceil(100 / 16)
        ([(50, 100)], 10),  # ceil(150 / 16)
    ]


def test_the_victim_is_the_newest_and_goes_to_the_head_of_the_queue() -> None:
    # Three requests fill 9 blocks: A holds 16 tokens in 1 block, B and C 64 and 60 in 4 each. A's next token
    # needs a block and there is none: C loses its 4, A takes one.
    story = Story(SYNC, num_blocks=9)
    for prompt_tokens in (16, 64, 60):
        story.add(prompt_tokens, 3)
    story.run()
    story.add(16, 10)
    batch = story.run()
    assert (batch.num_preempted, batch.num_running, batch.num_waiting) == (1, 2, 2)
    assert batch.decodes.count == 2
    while not (batch := story.run()).admitted:
        pass
    assert admitted(batch)[0] == 2


def test_nobody_is_admitted_in_a_step_that_preempts() -> None:
    # C is in the middle of its prompt when A needs a third block: 8 blocks, 2 + 2 + 2 held, C wants 2 more.
    # Without C and with A's third there are 3 free, enough for C's first 32 tokens, but not in this step.
    spec = sync(long_prefill_token_threshold=32, scheduler_reserve_full_isl=False)
    story = Story(spec, num_blocks=8)
    for prompt_tokens in (32, 20, 64):
        story.add(prompt_tokens, 10)
    story.run()
    batch = story.run()
    assert (batch.num_preempted, admitted(batch), story.kv.num_free) == (1, [], 3)
    assert admitted(story.run()) == [2]


def test_a_victim_waits_at_the_head_and_computes_prompt_and_answer_again() -> None:
    # C has 3 tokens of its answer when A and B need second blocks and one is free: it resumes with 14 + 3
    # tokens, before D.
    story = Story(SYNC, num_blocks=4)
    for output_tokens in (18, 18, 20):
        story.add(14, output_tokens)
    story.run(3)
    story.add(16, 1)
    assert story.run().num_preempted == 1
    while not (batch := story.run()).admitted:
        assert batch.num_waiting == 2
    assert (admitted(batch), chunks(batch)) == ([2, 3], [(17, 0), (16, 0)])


def test_a_request_that_finds_no_block_for_itself_is_its_own_victim() -> None:
    # A and B hold 2 + 1 of 3 blocks; B is the newest, and it is B that needs one more.
    story = Story(SYNC, num_blocks=3)
    story.add(20, 5)
    story.add(16, 5)
    story.run()
    batch = story.run()
    assert (batch.num_preempted, batch.decodes.count, batch.num_waiting) == (1, 1, 1)


def test_admission_asks_for_blocks_for_the_whole_prompt() -> None:
    # 3 blocks are free. The first chunk of 32 tokens would fit, the prompt of 64 does not.
    spec = sync(max_num_batched_tokens=64, long_prefill_token_threshold=32)
    story = Story(spec, num_blocks=5)
    story.add(32, 30)
    story.run()
    story.add(64, 1)
    assert admitted(story.step()) == []


def test_without_the_gate_admission_asks_for_blocks_for_the_first_chunk() -> None:
    spec = sync(max_num_batched_tokens=64, long_prefill_token_threshold=32, scheduler_reserve_full_isl=False)
    story = Story(spec, num_blocks=5)
    story.add(32, 30)
    story.run()
    story.add(64, 1)
    assert admitted(story.step()) == [1]


@pytest.mark.parametrize(("watermark", "expected"), [(0.0, [1]), (0.25, [])])
def test_the_watermark_stays_free_while_others_run(watermark: float, expected: list[int]) -> None:
    # 11 blocks and vLLM's null block: a quarter of 12 is 3. A holds 4 of them and B asks for 5: 7 are free.
    story = Story(sync(watermark=watermark), num_blocks=11)
    story.add(50, 10)
    story.run()
    story.add(80, 10)
    assert admitted(story.step()) == expected


def test_the_watermark_does_not_bind_an_engine_that_runs_nothing() -> None:
    story = Story(sync(watermark=0.5), num_blocks=11)
    story.add(150, 2)
    assert admitted(story.step()) == [0]


def test_a_slot_is_for_one_request() -> None:
    story = Story(sync(max_num_seqs=2))
    for _ in range(3):
        story.add(10, 2)
    assert [admitted(story.run()) for _ in range(3)] == [[0, 1], [], [2]]


def test_asynchronous_scheduling_keeps_a_finished_request_s_slot_for_one_step() -> None:
    story = Story(ASYNC.model_copy(update={"max_num_seqs": 1}))
    story.add(10, 1)
    story.add(10, 1)
    first = story.step()
    assert finishing(first) == [0]
    assert story.scheduler.schedule() is None, "its last token is on its way, so nothing is to be computed"
    assert (story.scheduler.num_running, story.scheduler.num_waiting) == (1, 1)
    story.end(first)
    assert admitted(story.step()) == [1]


def test_asynchronous_scheduling_skips_a_finished_request_beside_others() -> None:
    story = Story(ASYNC)
    story.add(10, 2)
    story.add(10, 9)
    first, second, third = story.step(), story.step(), story.step()
    assert [finishing(batch) for batch in (first, second, third)] == [[], [0], []]
    assert [batch.decodes.count for batch in (second, third)] == [2, 1]
    assert (third.num_running, third.kv_blocks_used) == (2, 2), "slot and block are held until the output"
    story.end(first)
    story.end(second)
    assert story.step().num_running == 1


def test_a_victim_whose_last_token_is_on_its_way_ends_without_running_again() -> None:
    # A needs a second block while B, complete but for its output, holds the other one.
    story = Story(ASYNC, num_blocks=2)
    story.add(16, 9)
    story.add(16, 1)
    first, second = story.step(), story.step()
    assert finishing(first) == [1]
    assert (second.num_preempted, second.num_running, second.num_waiting) == (1, 1, 0)
    story.end(first)
    assert story.num_used == 2


def test_an_answer_ends_at_the_context_limit() -> None:
    # 20 tokens in all, 15 of them prompt: 5 answer tokens of the 100 asked for.
    story = Story(sync(max_model_len=20))
    story.add(15, 100)
    assert [finishing(story.run()) for _ in range(5)] == [[], [], [], [], [0]]
    assert story.num_used == 0


@pytest.mark.parametrize(("prompt_tokens", "refusal"), [(19, None), (20, "prompt_exceeds_max_model_len")])
def test_a_prompt_that_leaves_no_room_for_a_token_is_refused(prompt_tokens: int, refusal: str | None) -> None:
    assert Story(sync(max_model_len=20)).add(prompt_tokens, 1) == refusal


@pytest.mark.parametrize(("output_tokens", "refusal"), [(17, None), (18, "exceeds_kv_cache")])
def test_a_request_larger_than_the_cache_is_refused(output_tokens: int, refusal: str | None) -> None:
    # 4 blocks of 16 hold 64 tokens; the KV of the last token is never computed: 48 + 17 - 1 = 64.
    assert Story(SYNC, num_blocks=4).add(48, output_tokens) == refusal


@pytest.mark.parametrize(
    ("threshold", "refusal"), [(0, "exceeds_token_budget"), (2048, None), (3000, "exceeds_token_budget")]
)
def test_without_chunked_prefill_what_no_step_can_hold_is_refused(
    threshold: int, refusal: str | None
) -> None:
    # 2048 + 2 - 1 = 2049 tokens, should it be preempted before its last token; a step holds 2048.
    spec = sync(enable_chunked_prefill=False, long_prefill_token_threshold=threshold)
    assert Story(spec).add(2048, 1) is None
    assert Story(spec).add(2048, 2) == refusal


def test_a_refused_request_takes_part_in_nothing() -> None:
    story = Story(SYNC, num_blocks=4)
    story.add(1000, 1)
    assert (story.scheduler.schedule(), story.scheduler.num_waiting) == (None, 0)


@pytest.mark.parametrize(("num_tokens", "padded"), [(13, 16), (129, 136), (300, 304), (513, 513)])
def test_a_step_is_padded_to_a_captured_graph(num_tokens: int, padded: int) -> None:
    assert CudaGraphSizes(vllm_capture_sizes(max_num_seqs=256)).pad(num_tokens) == padded


def test_every_running_request_must_be_able_to_decode() -> None:
    with pytest.raises(ValidationError, match=r"max_num_batched_tokens \(8\) must be at least max_num_seqs"):
        VllmV1Spec(max_num_batched_tokens=8, max_num_seqs=9)
