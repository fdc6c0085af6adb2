"""DeepSpeed-FastGen's rules one by one, each with numbers worked out by hand.

Source: DeepSpeed-MII mii/batching/ragged_batching.py, commit d100a854.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simllm.sim.policy.scheduler.fastgen import FastGenSpec

from .drive import Story, admitted, chunks
from .engine_laws import Rows, check_laws, loads

SPEC = FastGenSpec()


def story(spec: FastGenSpec = SPEC, num_blocks: int = 1000, block_size: int = 128) -> Story:
    return Story(spec, num_blocks=num_blocks, block_size=block_size)


def test_prompts_fill_what_100_decodes_leave_of_768_tokens() -> None:
    it = story()
    for _ in range(100):
        it.add(1, 9)
    it.run()
    it.add(500, 2)
    it.add(400, 2)
    first, second = it.run(), it.run()
    # 768 - 100 = 668 = 500 + 168; the rest of the second prompt, 232, comes first in the next step.
    assert (chunks(first), first.num_tokens) == ([(500, 0), (168, 0)], 768)
    assert (chunks(second), second.decodes.count) == ([(232, 168)], 101)


def test_the_rest_of_a_split_prompt_comes_before_other_prompts() -> None:
    it = story()
    for prompt_tokens in (1000, 300, 600):
        it.add(prompt_tokens, 1)
    assert [chunks(it.run()) for _ in range(3)] == [
        [(768, 0)],
        [(232, 768), (300, 0), (236, 0)],
        [(364, 236)],
    ]


def test_a_prompt_waits_until_the_blocks_of_all_its_tokens_are_free() -> None:
    # 8 blocks of 128: the first prompt takes 6, and 300 tokens need 3. Nobody overtakes.
    it = story(num_blocks=8)
    it.add(700, 2)
    it.add(300, 1)
    it.add(100, 1)
    assert admitted(it.run()) == [0]
    assert admitted(it.run()) == []
    assert admitted(it.run()) == [1, 2]


def test_a_decode_without_a_block_is_left_out_and_the_others_go_on() -> None:
    # 3 blocks of 4 tokens: A has 4 tokens and B 5 in all 3. A needs a block for its next token; B's has room.
    it = story(num_blocks=3, block_size=4)
    it.add(4, 3)
    it.add(5, 3)
    assert it.run().num_sampled == 2
    batch = it.run()
    assert (batch.decodes.count, [live.index for live in batch.paused], batch.num_preempted) == (1, [0], 0)
    # B ends after one more token, and A goes on.
    assert [live.index for live in it.run().finishing] == [1]
    batch = it.run()
    assert (batch.decodes.count, [live.index for live in batch.rejoined]) == (1, [0])


def test_the_last_request_with_kv_is_flushed_to_the_tail_when_nothing_can_go_on() -> None:
    # 2 blocks of 4 tokens, one for each: both need a second one. B is flushed and A goes on.
    it = story(num_blocks=2, block_size=4)
    it.add(4, 3)
    it.add(4, 3)
    it.run()
    it.add(4, 1)
    batch = it.run()
    assert (batch.num_preempted, batch.decodes.count, batch.num_running, batch.num_waiting) == (1, 1, 1, 2)
    it.run()  # A ends: the third request was in the buffer before B came back, as a prompt of 4 + 1 tokens
    assert chunks(it.step()) == [(4, 0)]


def test_no_step_holds_more_requests_than_max_ragged_sequence_count() -> None:
    it = story(FastGenSpec(max_ragged_sequence_count=2))
    for _ in range(3):
        it.add(10, 3)
    # The third prompt comes beside no decodes but those of a step of two: it must wait for a free place.
    assert [it.run().decodes.count for _ in range(5)] == [0, 2, 2, 0, 1]


def test_a_step_may_not_hold_more_requests_than_are_tracked() -> None:
    with pytest.raises(ValidationError, match="max_tracked_sequences"):
        FastGenSpec(max_tracked_sequences=100)


@given(loads(), st.integers(1, 6), st.integers(8, 64), st.integers(25, 40))
def test_the_laws_hold_under_random_load(rows: Rows, seqs: int, budget: int, num_blocks: int) -> None:
    spec = FastGenSpec(max_ragged_batch_size=budget, max_ragged_sequence_count=seqs)
    check_laws(rows, spec, num_blocks=num_blocks, block_size=4)
