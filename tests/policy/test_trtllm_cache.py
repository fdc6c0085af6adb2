"""TensorRT-LLM's reuse of blocks by hand: when blocks can be reused, by which priority they go, and in part.

Source: TensorRT-LLM cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp and evictionPolicy.cpp.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.policy.kv.block_reuse import BlockReuse
from simllm.sim.policy.kv.free_queue import FreeQueue
from simllm.sim.policy.kv.prefix import PrefixKvCache
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.request import ContentRun, Request, output_content_id

from .cache_side_by_side import CacheSideBySide, Prompt, moves
from .trtllm_cache_reference import LiteralTrtllmCache

TEXT, OTHER, THIRD = 1, 2, 3


class Tale:
    """A cache and requests that come and go one after another; blocks of 32 tokens."""

    def __init__(self, num_blocks: int, reuse: BlockReuse | None = None) -> None:
        self.kv = PrefixKvCache(num_blocks=num_blocks, block_size=32, reuse=reuse or BlockReuse())
        self.num_sent = 0

    def request(self, *content: tuple[int, int], output_tokens: int = 1) -> LiveRequest:
        runs = tuple(ContentRun(*run) for run in content)
        size = sum(run.num_tokens for run in runs)
        self.num_sent += 1
        return LiveRequest(Request(self.num_sent - 1, 0.0, size, output_tokens, runs), output_tokens)

    def start(self, *content: tuple[int, int], output_tokens: int = 1) -> LiveRequest:
        """Admits a request and computes its prompt."""
        live = self.request(*content, output_tokens=output_tokens)
        self.kv.admit(live, self.kv.lookup(live), live.prompt_tokens)
        live.num_computed = live.prompt_tokens
        self.kv.computed(live, live.prompt_tokens)
        return live

    def run(self, *content: tuple[int, int]) -> None:
        self.kv.release(self.start(*content), is_finished=True)

    def cached(self, *content: tuple[int, int]) -> int:
        """Returns how many blocks of a text are cached."""
        return self.kv.lookup(self.request(*content, (99, 1))).num_blocks


def test_a_prompt_s_blocks_are_reused_once_it_is_computed() -> None:
    tale = Tale(10)
    live = tale.request((TEXT, 64))
    tale.kv.admit(live, tale.kv.lookup(live), 64)
    assert tale.cached((TEXT, 64)) == 0
    tale.kv.computed(live, 64)
    assert tale.cached((TEXT, 64)) == 2


def test_under_a_scheduler_that_does_not_tell_blocks_are_reused_at_once() -> None:
    tale = Tale(10, BlockReuse(at_once=True))
    live = tale.request((TEXT, 64))
    tale.kv.admit(live, tale.kv.lookup(live), 64)
    assert tale.cached((TEXT, 64)) == 2


@pytest.mark.parametrize(
    ("prompt_priority", "output_priority", "kept"),
    [
        (35, 35, 2),  # the unused one, then the answer's two, which were released first
        (35, 80, 0),  # the unused one, then the prompt's two
        (10, 35, 0),  # the prompt's two, then the unused one
        (80, 35, 2),
    ],
)
def test_blocks_of_low_priority_go_first(prompt_priority: int, output_priority: int, kept: int) -> None:
    # A prompt and an answer of 2 blocks each fill 4 of 5 blocks, and 3 are taken; unused ones rank as 35.
    tale = Tale(5, BlockReuse(prompt_priority=prompt_priority, output_priority=output_priority))
    live = tale.start((TEXT, 64), output_tokens=65)
    tale.kv.take(2)
    live.num_computed = 128
    tale.kv.release(live, is_finished=True)
    tale.kv.take(3)
    assert tale.cached((TEXT, 64)) == kept


def test_what_follows_an_evicted_block_is_lost_with_it() -> None:
    # The prompt goes first here; the answer's blocks stay where they are but can't be reached any more.
    tale = Tale(4, BlockReuse(prompt_priority=10))
    live = tale.start((TEXT, 64), output_tokens=65)
    tale.kv.take(2)
    live.num_computed = 128
    tale.kv.release(live, is_finished=True)
    tale.kv.take(1)
    answer = (output_content_id(live.index), 64)
    assert tale.cached((TEXT, 64), answer) == 1
    assert tale.kv.num_free == 3


@pytest.mark.parametrize(
    ("second", "copied"),
    [
        (((TEXT, 40), (OTHER, 60)), 8),  # inside a block of the same text
        (((TEXT, 64), (OTHER, 60)), 0),  # at the end of what is cached
        (((OTHER, 64),), 0),
        (((TEXT, 64),), 31),  # the last token is computed
        (((TEXT, 50),), 17),
    ],
)
def test_the_beginning_of_a_block_is_copied(second: tuple[tuple[int, int], ...], copied: int) -> None:
    tale = Tale(10)
    tale.run((TEXT, 64))
    hit = tale.kv.lookup(tale.request(*second))
    assert hit.num_copied_tokens == copied
    assert tale.kv.match_len(tale.request(*second)) == 32 * hit.num_blocks + copied


def test_of_blocks_that_begin_alike_the_one_with_most_in_common_is_copied() -> None:
    # Cached are blocks of 10 and of 20 tokens of the text, each filled up with another one.
    tale = Tale(10)
    tale.run((TEXT, 10), (OTHER, 22))
    tale.run((TEXT, 20), (THIRD, 12))
    assert tale.kv.lookup(tale.request((TEXT, 15), (4, 40))).num_copied_tokens == 15
    tale.kv.take(9)  # evicts the older one
    assert tale.kv.lookup(tale.request((TEXT, 15), (4, 40))).num_copied_tokens == 15
    tale.kv.take(1)
    assert tale.kv.lookup(tale.request((TEXT, 15), (4, 40))).num_copied_tokens == 0


def test_nothing_is_copied_without_partial_reuse() -> None:
    tale = Tale(10, BlockReuse(is_partial=False))
    tale.run((TEXT, 64))
    assert tale.kv.lookup(tale.request((TEXT, 40), (OTHER, 60))).num_copied_tokens == 0


def test_copied_tokens_count_as_hit() -> None:
    # 128 and 100 tokens are asked for; a block and 8 tokens of the next one are hit.
    tale = Tale(10)
    tale.run((TEXT, 128))
    tale.run((TEXT, 40), (OTHER, 60))
    stats = tale.kv.stats
    assert (stats.query_tokens, stats.hit_tokens) == (228, 40)
    assert stats.hit_tokens + sum(stats.misses.values()) == 228


def test_a_level_is_used_up_before_the_next_one() -> None:
    queue = FreeQueue(2, lambda node, count: None, num_levels=3, first_level=1)
    queue.push(3, None, 2)
    queue.push(4, None, 0)
    queue.push(1, None, 1)
    queue.take(5)
    assert (queue.num_blocks, queue.total()) == (5, 5)
    queue.push(2, None, 0)
    queue.take(5)
    assert (queue.num_blocks, queue.total()) == (2, 2)


@settings(max_examples=300, deadline=None)
@given(
    played=moves(),
    num_blocks=st.sampled_from([8, 14, 30]),
    chunk=st.sampled_from([3, 8, 64]),
    priorities=st.sampled_from([(35, 35), (35, 80), (80, 35), (10, 20), (20, 10)]),
)
def test_hits_and_evictions_are_the_literal_manager_s(
    played: list[Prompt | int | tuple[str, int]], num_blocks: int, chunk: int, priorities: tuple[int, int]
) -> None:
    play(played, num_blocks, chunk, priorities)


def test_the_comparison_sees_hits_and_evictions() -> None:
    turns = [Prompt(i % 3, 12, 3, 6, goes_on=i % 2 == 1) for i in range(20)]
    both = play([move for turn in turns for move in (turn, 9)], 20, 8, (80, 35))
    assert both.num_hit_blocks > 20
    assert both.num_evicting > 10


def play(
    played: list[Prompt | int | tuple[str, int]], num_blocks: int, chunk: int, priorities: tuple[int, int]
) -> CacheSideBySide:
    """Plays without prompts side by side, which the scheduler keeps apart if they begin alike."""
    both = CacheSideBySide(
        PrefixKvCache(num_blocks=num_blocks, block_size=4, reuse=BlockReuse(*priorities, is_partial=False)),
        LiteralTrtllmCache(num_blocks, 4, *priorities),
        chunk=chunk,
    )
    for move in played:
        if isinstance(move, Prompt):
            if all(one.is_decoding for one in both.running):
                both.arrive(move)
        elif isinstance(move, int):
            for _ in range(move):
                both.step()
        else:
            both.give_up(move[1])
    return both
