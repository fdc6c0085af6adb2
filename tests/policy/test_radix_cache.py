"""SGLang's radix cache: by hand, and against a literal one.

Source: SGLang python/sglang/srt/mem_cache/radix_cache.py and evict_policy.py.
"""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import InvariantError
from simllm.sim.policy.kv.radix import RadixKvCache
from simllm.sim.policy.kv.radix_order import RadixPolicy
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.request import ContentRun, Request, output_content_id

from .cache_side_by_side import CacheSideBySide, Prompt, moves
from .radix_cache_reference import LiteralRadixCache

TEXT, OTHER, THIRD, FOURTH = 1, 2, 3, 4
POLICIES = get_args(RadixPolicy)


class Tale:
    """A cache and requests that come and go one after another; a block is a token."""

    def __init__(self, num_blocks: int, *, block_size: int = 1, policy: str = "lru") -> None:
        self.kv = RadixKvCache(num_blocks=num_blocks, block_size=block_size, policy=policy)
        self.num_sent = 0

    def request(self, *content: tuple[int, int], priority: int = 0, output_tokens: int = 1) -> LiveRequest:
        runs = tuple(ContentRun(*run) for run in content)
        size = sum(run.num_tokens for run in runs)
        self.num_sent += 1
        index = self.num_sent - 1
        return LiveRequest(Request(index, 0.0, size, output_tokens, runs, priority=priority), output_tokens)

    def start(self, *content: tuple[int, int], priority: int = 0, output_tokens: int = 1) -> LiveRequest:
        """Admits a request and computes its prompt."""
        live = self.request(*content, priority=priority, output_tokens=output_tokens)
        self.kv.admit(live, self.kv.lookup(live), live.prompt_tokens)
        live.num_computed = live.prompt_tokens
        self.kv.computed(live, live.prompt_tokens)
        return live

    def run(self, *content: tuple[int, int], priority: int = 0) -> None:
        """Computes a prompt and lets it go."""
        self.kv.release(self.start(*content, priority=priority), is_finished=True)

    def cached(self, *content: tuple[int, int]) -> int:
        """Returns how many tokens of a text are cached, without touching it."""
        return self.kv.match_len(self.request(*content, (99, 1)))


def test_prompts_share_every_token_up_to_where_they_part() -> None:
    tale = Tale(100)
    tale.run((TEXT, 37))
    assert tale.cached((TEXT, 21)) == 21
    assert tale.cached((TEXT, 21), (OTHER, 30)) == 21
    assert tale.cached((OTHER, 30)) == 0


def test_pages_share_full_pages_only() -> None:
    tale = Tale(100, block_size=16)
    tale.run((TEXT, 37))
    assert (tale.cached((TEXT, 37)), tale.cached((TEXT, 21))) == (32, 16)


def test_one_token_at_least_is_computed() -> None:
    tale = Tale(100)
    tale.run((TEXT, 37))
    assert tale.kv.lookup(tale.request((TEXT, 37))).num_blocks == 36


def test_a_prompt_is_cached_when_it_is_computed_and_not_before() -> None:
    tale = Tale(100)
    live = tale.request((TEXT, 30))
    tale.kv.admit(live, tale.kv.lookup(live), 20)
    assert tale.cached((TEXT, 30)) == 0
    tale.kv.computed(live, 20)
    assert tale.cached((TEXT, 30)) == 20


def test_what_two_computed_side_by_side_is_kept_once() -> None:
    # Both hold 30 tokens. When both prompts are in the tree it has them once: 30 of 100 are held.
    tale = Tale(100)
    one, two = tale.request((TEXT, 30)), tale.request((TEXT, 30))
    for live in (one, two):
        tale.kv.admit(live, tale.kv.lookup(live), 30)
        live.num_computed = 30
    assert tale.kv.num_free == 40
    tale.kv.computed(one, 30)
    tale.kv.computed(two, 30)
    assert tale.kv.num_free == 70
    tale.kv.check([(one, 30), (two, 30)])


def test_running_requests_lock_their_path() -> None:
    tale = Tale(40)
    tale.start((TEXT, 30))
    assert (tale.kv.num_free, tale.kv.num_evictable) == (10, 0)
    with pytest.raises(InvariantError, match="took 11 blocks with 10 free"):
        tale.kv.take(11)


def test_the_least_recently_used_leaf_goes_whole() -> None:
    # 30 tokens in three leaves fill the cache. One more token costs the whole of the oldest leaf, 10.
    tale = Tale(30)
    for text in (TEXT, OTHER, THIRD):
        tale.run((text, 10))
    tale.run((FOURTH, 1))
    assert [tale.cached((text, 10)) for text in (TEXT, OTHER, THIRD)] == [0, 10, 10]
    assert tale.kv.num_free == 30


def test_a_prefix_outlives_what_follows_it() -> None:
    # The prompts part after 10 tokens: leaves of 5 each below a node of 10, which is no leaf.
    tale = Tale(20)
    tale.run((TEXT, 10), (OTHER, 5))
    tale.run((TEXT, 10), (THIRD, 5))
    tale.run((FOURTH, 6))
    assert tale.cached((TEXT, 10), (OTHER, 5)) == tale.cached((TEXT, 10), (THIRD, 5)) == 10


def test_looking_up_refreshes_and_matching_its_length_does_not() -> None:
    tale = Tale(20)
    tale.run((TEXT, 10))
    tale.run((OTHER, 10))
    tale.cached((TEXT, 10))
    tale.kv.lookup(tale.request((TEXT, 10), (99, 1)))
    tale.run((THIRD, 1))
    assert (tale.cached((TEXT, 10)), tale.cached((OTHER, 10))) == (10, 0)


def test_a_retracted_request_leaves_its_prompt_behind_and_nothing_of_its_answer() -> None:
    tale = Tale(100)
    live = tale.start((TEXT, 30), output_tokens=20)
    tale.kv.take(10)
    live.num_computed, live.num_sampled = 40, 11
    tale.kv.release(live, is_finished=False)
    assert (tale.kv.num_free, tale.kv.num_evictable) == (100, 30)


def test_the_next_turn_hits_prompt_and_answer() -> None:
    # An answer of 20 tokens has KV for 19: the last one is never computed.
    tale = Tale(100)
    live = tale.start((TEXT, 30), output_tokens=20)
    tale.kv.take(19)
    live.num_computed = 49
    tale.kv.release(live, is_finished=True)
    assert tale.cached((TEXT, 30), (output_content_id(live.index), 19), (OTHER, 5)) == 49


def test_a_tree_of_prompts_keeps_no_answers() -> None:
    kv = RadixKvCache(num_blocks=100, block_size=1, keeps_answers=False)
    tale = Tale(100)
    tale.kv = kv
    live = tale.start((TEXT, 30), output_tokens=20)
    kv.take(19)
    live.num_computed = 49
    kv.release(live, is_finished=True)
    assert (kv.num_free, kv.num_evictable) == (100, 30)


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        ("lru", OTHER),  # used last before all others
        ("mru", THIRD),  # used last of all
        ("fifo", TEXT),  # created first: its last token, cut off when all but it was hit
        ("filo", THIRD),  # created last
        ("lfu", OTHER),  # one hit, before the other one of one
        ("slru", OTHER),  # of those with less than two hits the one used last before
        ("priority", THIRD),  # of the lowest priority
    ],
)
def test_each_policy_evicts_its_leaf(policy: str, gone: int) -> None:
    # Created in the order TEXT, OTHER, THIRD with priorities 2, 1, 0; then TEXT and THIRD are used again,
    # THIRD only looked up, which is no hit of its own.
    # 31 blocks hold the three texts and one token more, so that the fourth text evicts one leaf.
    tale = Tale(31, policy=policy)
    for text, priority in ((TEXT, 2), (OTHER, 1), (THIRD, 0)):
        tale.run((text, 10), priority=priority)
    tale.kv.release(tale.start((TEXT, 10)), is_finished=True)
    tale.kv.lookup(tale.request((THIRD, 10), (99, 1)))
    tale.run((FOURTH, 2))
    missing = [text for text in (TEXT, OTHER, THIRD) if tale.cached((text, 10)) < 10]
    assert missing == [gone]


def test_the_front_of_a_cut_edge_is_new() -> None:
    # TEXT is older than OTHER until a look-up cuts it: its front is created then. First in, first out are
    # TEXT's back (5), OTHER (10), TEXT's front.
    tale = Tale(20, policy="fifo")
    tale.run((TEXT, 10))
    tale.run((OTHER, 10))
    tale.kv.lookup(tale.request((TEXT, 5), (99, 1)))
    tale.kv.take(15)
    assert (tale.cached((TEXT, 10)), tale.cached((OTHER, 10))) == (5, 0)


def test_the_front_of_a_cut_edge_has_been_hit_as_often_as_the_whole() -> None:
    # TEXT has two hits when it is cut; its back makes room for OTHER, which has one and so goes before it.
    tale = Tale(11, policy="lfu")
    tale.run((TEXT, 10))
    tale.run((TEXT, 10))
    tale.kv.lookup(tale.request((TEXT, 5), (99, 1)))
    tale.run((OTHER, 5))
    tale.kv.take(2)
    assert (tale.cached((TEXT, 10)), tale.cached((OTHER, 5))) == (5, 0)


def test_what_was_looked_up_is_hit_or_missed_for_a_reason() -> None:
    tale = Tale(40)
    tale.run((TEXT, 30))
    tale.run((OTHER, 40))
    tale.run((TEXT, 30))
    stats = tale.kv.stats
    assert (stats.query_tokens, stats.hit_tokens) == (100, 0)
    assert stats.misses == {"no_shared_prefix": 70, "below_block": 0, "evicted": 30}


@settings(max_examples=300, deadline=None)
@given(
    played=moves(),
    policy=st.sampled_from(POLICIES),
    block_size=st.sampled_from([1, 4]),
    num_tokens=st.sampled_from([24, 48, 96]),
    chunk=st.sampled_from([3, 8, 64]),
)
def test_hits_and_evictions_are_the_literal_tree_s(
    played: list[Prompt | int | tuple[str, int]], policy: str, block_size: int, num_tokens: int, chunk: int
) -> None:
    play(played, policy, block_size, num_tokens, chunk)


def test_the_comparison_sees_hits_and_evictions() -> None:
    turns = [Prompt(i % 3, 12, 3, 6, goes_on=i % 2 == 1) for i in range(20)]
    both = play([move for turn in turns for move in (turn, 6)], "lru", 1, 72, 8)
    assert both.num_hit_blocks > 50
    assert both.num_evicting > 10


def play(
    played: list[Prompt | int | tuple[str, int]], policy: str, block_size: int, num_tokens: int, chunk: int
) -> CacheSideBySide:
    num_blocks = num_tokens // block_size
    both = CacheSideBySide(
        RadixKvCache(num_blocks=num_blocks, block_size=block_size, policy=policy),
        LiteralRadixCache(num_blocks, block_size, policy),
        chunk=chunk,
    )
    for move in played:
        if isinstance(move, Prompt):
            both.arrive(move)
        elif isinstance(move, int):
            for _ in range(move):
                both.step()
        else:
            both.give_up(move[1])
    return both
