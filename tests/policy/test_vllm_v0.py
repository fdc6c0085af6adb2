"""vLLM V0's rules one by one, each with numbers worked out by hand.

Source: vLLM vllm/core/scheduler.py (commit 0dce2b29) and block_manager.py (commit 006a839f).
"""

from __future__ import annotations

import pytest
from harness import make_demand, play
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from toys import ToyStepModel

from simllm.sim.policy.moves import When
from simllm.sim.policy.scheduler import make_scheduler
from simllm.sim.policy.scheduler.vllm_v0 import VllmV0Scheduler, VllmV0Spec

from .drive import Story, admitted, chunks, finishing
from .engine_laws import Rows, check_laws, loads

SPEC = VllmV0Spec(max_model_len=2048)


def spec(**fields: object) -> VllmV0Spec:
    return SPEC.model_copy(update=fields)


def swap_story(num_blocks: int, host_blocks: int) -> Story:
    """A story with blocks of 4 tokens and 1 GiB, on two GPUs with three layers."""
    story = Story(
        spec(preemption_mode="swap", swap_space=host_blocks / 2), num_blocks=num_blocks, block_size=4
    )
    story.scheduler = make_scheduler(
        spec(preemption_mode="swap", swap_space=host_blocks / 2),
        kv=story.kv,
        max_model_len=2048,
        block_bytes=1 << 30,
        num_gpus=2,
        num_layers=3,
    )
    return story


def test_a_step_holds_prompts_or_decodes() -> None:
    story = Story(SPEC)
    story.add(10, 3)
    assert (chunks(story.run()), story.num_added) == ([(10, 0)], 1)
    story.add(20, 2)
    batch = story.run()  # the decode waits
    assert (chunks(batch), batch.decodes.count, batch.stalls_decodes) == ([(20, 0)], 0, True)
    batch = story.run()
    assert (chunks(batch), batch.decodes.count) == ([], 2)


def test_prompts_are_taken_whole_while_the_budget_lasts() -> None:
    story = Story(SPEC)
    for prompt_tokens in (1000, 1000, 100):
        story.add(prompt_tokens, 1)
    assert [admitted(story.run()) for _ in range(2)] == [[0, 1], [2]]


def test_the_budget_covers_the_longest_prompt() -> None:
    # vLLM's own default without chunked prefill is max(max_model_len, 2048).
    story = Story(spec(max_model_len=5000))
    story.add(4000, 1)
    assert chunks(story.run()) == [(4000, 0)]


def test_admissions_leave_one_in_100_blocks_free() -> None:
    # 300 blocks, the null block included: 3 stay free. 197 blocks of tokens leave 102: 99 for a prompt.
    story = Story(spec(max_model_len=8192), num_blocks=299)
    story.add(16 * 197, 50)
    story.add(16 * 100, 1)
    assert admitted(story.run()) == [0]
    story = Story(spec(max_model_len=8192), num_blocks=299)
    story.add(16 * 197, 50)
    story.add(16 * 99, 1)
    assert admitted(story.run()) == [0, 1]


def test_the_newest_is_recomputed_before_others_that_wait() -> None:
    # 5 blocks of 4: A and B hold 2 each of them; then both need a third, and one is left for A.
    story = Story(SPEC, num_blocks=5, block_size=4)
    story.add(8, 5)
    story.add(8, 5)
    story.run()
    batch = story.run()
    assert (batch.num_preempted, batch.decodes.count, batch.num_waiting) == (1, 1, 1)
    story.add(4, 1)
    # B computes its 8 + 1 tokens again: 3 blocks, 2 are free; nobody overtakes.
    assert chunks(story.run()) == []
    story.run(2)
    assert chunks(story.run()) == [(9, 0), (4, 0)]


def test_every_decode_needs_a_free_block_at_its_turn_even_if_it_does_not_use_it() -> None:
    # 4 blocks of 4: A (8 tokens) takes the last one. B has room for its next token but finds no free block.
    story = Story(SPEC, num_blocks=4, block_size=4)
    story.add(8, 5)
    story.add(2, 5)
    story.run()
    batch = story.run()
    assert [live.index for live in batch.paused] == [1]
    # The other way round B finds one, and A takes it.
    story = Story(SPEC, num_blocks=4, block_size=4)
    story.add(2, 5)
    story.add(8, 5)
    story.run()
    assert story.run().num_preempted == 0


def test_swapped_blocks_are_copied_before_the_step_by_layer_keys_and_values_apart() -> None:
    story = swap_story(num_blocks=5, host_blocks=10)
    story.add(8, 5)
    story.add(8, 5)
    story.run()
    batch = story.run()
    (move,) = story.scheduler.moves
    assert (batch.num_preempted, batch.decodes.count, batch.num_waiting) == (1, 1, 1)
    assert (move.source, move.target, move.when) == ("hbm", "dram", When.BEFORE)
    assert (move.num_bytes, move.num_pieces) == (2 << 30, 2 * 2 * 3 * 2)  # blocks x (K, V) x layers x GPUs


def test_the_swapped_come_back_before_any_prompt_is_admitted() -> None:
    story = swap_story(num_blocks=5, host_blocks=10)
    story.add(8, 4)
    story.add(8, 4)
    story.run(2)
    story.add(1, 1)
    story.scheduler.moves.clear()
    # B has 8 tokens in 2 blocks and needs a third for the next one; A holds 3 until it ends.
    assert [story.run().decodes.count for _ in range(2)] == [1, 1]
    batch = story.run()
    (move,) = story.scheduler.moves
    assert (move.source, move.target, batch.decodes.count, admitted(batch)) == ("dram", "hbm", 1, [])
    assert admitted(story.run()) == [2]
    # Nothing was computed twice: 8 - 1 + 4 tokens.
    story.run()
    assert finishing(story.run()) == [1]


def test_who_finds_no_swap_space_is_recomputed() -> None:
    story = swap_story(num_blocks=5, host_blocks=1)
    story.add(8, 5)
    story.add(8, 5)
    story.run(2)
    assert (story.scheduler.moves, isinstance(story.scheduler, VllmV0Scheduler)) == ([], True)
    assert story.scheduler.num_waiting == 1


def test_chunked_prefill_puts_decodes_before_prompts_in_one_budget() -> None:
    story = Story(spec(enable_chunked_prefill=True, max_num_batched_tokens=256))
    story.add(100, 9)
    story.run()
    story.add(300, 2)
    story.add(50, 2)
    batches = [story.run() for _ in range(3)]
    assert [chunks(batch) for batch in batches] == [[(255, 0)], [(45, 255), (50, 0)], []]
    assert [batch.decodes.count for batch in batches] == [1, 1, 3]


def test_a_prompt_in_part_has_the_blocks_of_all_its_tokens() -> None:
    # Blocks of 4 tokens: the prompt of 32 is to take 8 though a step computes 15 of its tokens.
    story = Story(
        spec(enable_chunked_prefill=True, max_num_batched_tokens=16, max_num_seqs=8),
        num_blocks=11,
        block_size=4,
    )
    story.add(4, 9)
    story.run()
    story.add(32, 1)
    story.add(8, 1)
    # 2 of 11 blocks are the decode's and 8 the first prompt's: the second one, of 2 blocks, waits.
    assert chunks(story.run()) == [(15, 0)]
    assert [chunks(story.run()) for _ in range(2)] == [[(15, 15)], [(2, 30)]]


def test_a_step_that_swaps_waits_for_the_copies() -> None:
    # Steps of 10 ms, 1 ms a block. Prompts, then a step before which B's 2 blocks go out, and B waits for A's
    # fourth token at 10 + 12 + 10 + 10 ms. Its 2 blocks come back, and it needs three more steps.
    demand = make_demand([(0.0, 8, 4), (0.0, 8, 4)])
    recorder, _ = play(
        demand,
        spec=spec(preemption_mode="swap"),
        model=ToyStepModel(),
        num_blocks=5,
        copy_s=0.001,
        checks_blocks=True,
    )
    assert list(recorder.finished_at) == pytest.approx([0.042, 0.042 + 0.002 + 0.030])
    assert list(recorder.recomputed_tokens) == [0, 0]


def test_graphs_hold_as_many_requests_as_may_run() -> None:
    assert VllmV0Spec(max_num_seqs=20).capture_sizes == (1, 2, 4, 8, 16, 24)
    assert VllmV0Spec().capture_sizes[-1] == 256


def test_the_budget_holds_all_decodes() -> None:
    with pytest.raises(ValidationError, match="max_num_batched_tokens"):
        VllmV0Spec(max_num_batched_tokens=100)


@given(
    loads(),
    st.sampled_from(["recompute", "swap"]),
    st.booleans(),
    st.integers(1, 6),
    st.integers(8, 64),
    st.integers(26, 40),
    st.booleans(),
)
def test_the_laws_hold_under_random_load(
    rows: Rows, mode: str, is_chunked: bool, seqs: int, budget: int, num_blocks: int, caches: bool
) -> None:
    settings = spec(
        preemption_mode=mode,
        enable_chunked_prefill=is_chunked,
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        swap_space=20 / 1024,  # 20 blocks
    )
    check_laws(rows, settings, num_blocks=num_blocks, block_size=4, caches=caches, copy_s=0.0017003)
