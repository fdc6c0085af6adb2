"""vLLM's prefix cache by hand: what is hit, what it costs, and what is evicted first.

Source: vLLM vllm/v1/core/kv_cache_manager.py and block_pool.py.
"""

from __future__ import annotations

import pytest

from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import output_content_id

from .drive import Story, admitted, chunks

SYNC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=2048, async_scheduling=False)
TEXT, OTHER, THIRD = 1, 2, 3


def story(num_blocks: int = 100, spec: VllmV1Spec = SYNC) -> Story:
    return Story(spec, num_blocks=num_blocks, caches=True)


def hit(told: Story, num_tokens: int, *content: tuple[int, int]) -> int:
    """Runs a request of one answer token alone; returns the cached tokens that it hit."""
    told.add(num_tokens, 1, *content)
    batch = told.run()
    return batch.admitted[0].num_cached_tokens


@pytest.mark.parametrize(("prompt_tokens", "cached"), [(63, 48), (64, 48), (65, 64), (200, 64)])
def test_at_least_one_token_of_a_prompt_is_computed(prompt_tokens: int, cached: int) -> None:
    # 64 cached tokens are 4 blocks of 16. A prompt of the same 64 hits floor(63 / 16) * 16 = 48.
    told = story()
    hit(told, 64, (TEXT, 64))
    shared = min(prompt_tokens, 64)
    rest = ((OTHER, prompt_tokens - shared),) if prompt_tokens > shared else ()
    assert hit(told, prompt_tokens, (TEXT, shared), *rest) == cached


def test_a_hit_shortens_the_chunk() -> None:
    told = story()
    hit(told, 64, (TEXT, 64))
    told.add(70, 1, (TEXT, 70))
    assert chunks(told.run()) == [(6, 64)]


def test_only_full_blocks_are_shared() -> None:
    told = story()
    hit(told, 40, (TEXT, 40))
    assert hit(told, 100, (TEXT, 40), (OTHER, 60)) == 32


def test_a_block_is_known_by_all_that_comes_before_it() -> None:
    told = story()
    hit(told, 64, (TEXT, 32), (OTHER, 32))
    assert hit(told, 64, (THIRD, 32), (OTHER, 32)) == 0
    assert hit(told, 64, (TEXT, 24), (OTHER, 40)) == 16


def test_prompts_without_content_share_nothing() -> None:
    told = story()
    assert (hit(told, 64), hit(told, 64)) == (0, 0)


def test_a_prompt_is_cached_as_soon_as_its_step_is_scheduled() -> None:
    # Both come in the same step: the second hits what the first is about to compute, in its blocks.
    told = story()
    told.add(50, 1, (TEXT, 48), (OTHER, 2))
    told.add(50, 1, (TEXT, 48), (THIRD, 2))
    batch = told.step()
    assert chunks(batch) == [(50, 0), (2, 48)]
    assert batch.kv_blocks_used == 3 + 1 + 1


def test_a_held_prefix_costs_no_free_blocks_and_a_released_one_does() -> None:
    # 6 blocks. A prompt of 5 blocks fits beside 4 held ones that it shares, but not once as a stranger.
    told = story(num_blocks=6)
    told.add(65, 10, (TEXT, 65))
    told.run()
    told.add(80, 1, (TEXT, 64), (OTHER, 16))
    assert told.step().num_running == 2
    assert told.num_used == 6


def test_the_next_turn_hits_the_answer_before() -> None:
    # 40 + 25 - 1 = 64 tokens have KV: 4 full blocks, of which 2.5 are prompt.
    told = story()
    told.add(40, 25, (TEXT, 40))
    told.run(25)
    answer = (output_content_id(0), 25)
    assert hit(told, 75, (TEXT, 40), answer, (OTHER, 10)) == 64


def test_the_tail_of_a_released_prompt_is_evicted_first() -> None:
    # 6 blocks: 4 hold the text, a stranger's 3 evict one of them, the last.
    told = story(num_blocks=6)
    hit(told, 64, (TEXT, 64))
    hit(told, 48, (OTHER, 48))
    assert hit(told, 65, (TEXT, 65)) == 48


@pytest.mark.parametrize(("text", "cached"), [(TEXT, 32), (OTHER, 0), (THIRD, 32)])
def test_the_least_recently_released_prompt_is_evicted_first(text: int, cached: int) -> None:
    # Three texts of 2 blocks fill the 6; the first is used again, so the second makes room for the fourth.
    told = story(num_blocks=6)
    for used in (TEXT, OTHER, THIRD, TEXT, 4):
        hit(told, 32, (used, 32))
    assert hit(told, 33, (text, 33)) == cached


def test_a_victim_hits_its_own_blocks_when_it_resumes() -> None:
    # B has 32 tokens in 2 blocks and one more sampled when A takes the younger block: of 33 tokens it finds
    # 16 cached and computes 17, of which 16 for the second time.
    told = story(num_blocks=4)
    told.add(16, 18)
    told.add(16, 20)
    told.run(17)  # both have context 32 in 2 blocks
    assert told.run().num_preempted == 1
    while not (batch := told.run()).admitted:
        pass
    assert (admitted(batch), chunks(batch)) == ([1], [(17, 16)])
    assert batch.admitted[0].num_recomputed_tokens == 16


def test_what_was_looked_up_is_hit_or_missed_for_a_reason() -> None:
    told = story(num_blocks=6)
    hit(told, 70, (TEXT, 70))  # 4 blocks nobody had, and 6 tokens beyond them
    hit(told, 48, (OTHER, 48))  # evicts 2 blocks: 1 + 3 are free of TEXT's 4
    hit(told, 70, (TEXT, 70))
    stats = told.kv.stats
    assert stats.query_tokens == 70 + 48 + 70
    assert stats.hit_tokens + sum(stats.misses.values()) == stats.query_tokens
    assert stats.misses == {
        "no_shared_prefix": 64 + 48,
        "below_block": 6 + 6,
        "evicted": 64 - stats.hit_tokens,
    }
    assert stats.hit_tokens == 48
