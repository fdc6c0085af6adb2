"""KsanaLLM's prefix cache: by hand, and against a literal one.

Source: KsanaLLM src/ksana_llm/cache_manager/prefix_cache_manager.cpp at c451219c.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import InvariantError
from simllm.sim.policy.kv.ksana import KsanaKvCache
from simllm.sim.policy.live_request import LiveRequest
from simllm.sim.request import ContentRun, Request, output_content_id

from .cache_side_by_side import CacheSideBySide, Prompt, moves
from .ksana_cache_reference import LiteralKsanaCache

P, Q, R = 1, 2, 3
OWN = {"num_spare_tokens": 1, "hits_whole_prompts": True}


class Tale:
    """A cache and requests that come and go; blocks of 4 tokens, each call in a step of its own."""

    def __init__(self, num_blocks: int, *, shares: bool = True, is_own: bool = False) -> None:
        settings = OWN if is_own else {}
        self.kv = KsanaKvCache(num_blocks=num_blocks, block_size=4, shares=shares, **settings)
        self.num_sent = 0

    def request(self, *content: tuple[int, int], output_tokens: int = 1) -> LiveRequest:
        runs = tuple(ContentRun(*run) for run in content)
        size = sum(run.num_tokens for run in runs)
        self.num_sent += 1
        return LiveRequest(Request(self.num_sent - 1, 0.0, size, output_tokens, runs), output_tokens)

    def start(self, *content: tuple[int, int], output_tokens: int = 1) -> LiveRequest:
        """Admits a request and computes its prompt."""
        live = self.request(*content, output_tokens=output_tokens)
        self.kv.step += 1
        self.kv.admit(live, self.kv.lookup(live), live.prompt_tokens)
        live.num_computed = live.prompt_tokens
        self.kv.computed(live, live.prompt_tokens)
        return live

    def write(self, live: LiveRequest, num_tokens: int) -> None:
        """Gives a request `num_tokens` tokens of its answer, one a step."""
        before = self.kv.num_held(live.num_computed)
        self.kv.step += num_tokens
        live.num_computed += num_tokens
        self.kv.take(self.kv.num_held(live.num_computed) - before)

    def end(self, live: LiveRequest) -> None:
        self.kv.release(live, is_finished=True)

    def run(self, *content: tuple[int, int]) -> None:
        """Computes a prompt and lets it go."""
        self.end(self.start(*content))

    def cached(self, *content: tuple[int, int]) -> int:
        """Returns how many blocks of a text are cached."""
        return self.kv.match_len(self.request(*content, (99, 1))) // 4


@pytest.mark.parametrize(("num_taken", "p_blocks", "q_blocks"), [(1, 2, 1), (2, 2, 0), (3, 1, 0), (4, 0, 0)])
def test_the_newest_block_goes_first(num_taken: int, p_blocks: int, q_blocks: int) -> None:
    # P1 P2 are inserted, then Q1 Q2: freed are Q2, then Q1, P2, P1.
    tale = Tale(4)
    tale.run((P, 8))
    tale.run((Q, 8))
    tale.kv.take(num_taken)
    assert (tale.cached((P, 8)), tale.cached((Q, 8))) == (p_blocks, q_blocks)


def test_what_is_hit_stays_as_old_as_it_is() -> None:
    # P is used again after Q was inserted; still Q is newer.
    tale = Tale(5)
    tale.run((P, 8))
    tale.run((Q, 8))
    tale.run((P, 8), (99, 1))
    tale.kv.take(2)
    assert (tale.cached((P, 8)), tale.cached((Q, 8))) == (2, 1)


def test_an_answer_s_blocks_are_as_old_as_the_steps_that_filled_them() -> None:
    # In step 1 P gets its block. It writes 8 tokens until step 9, filling blocks in steps 5 and 9; Q's two
    # blocks come in step 6 or so. Newest first: the second of the answer, Q2, Q1, the first of the answer.
    tale = Tale(5)
    one = tale.start((P, 4), output_tokens=20)
    tale.write(one, 4)
    tale.run((Q, 8))
    tale.write(one, 4)
    tale.end(one)
    answer = (output_content_id(one.index), 8)
    left = []
    for _ in range(4):
        tale.kv.take(1)
        left.append((tale.cached((P, 4), answer), tale.cached((Q, 8))))
    assert left == [(2, 2), (2, 1), (2, 0), (1, 0)]


def test_equal_blocks_are_merged_when_they_are_full() -> None:
    # Both compute 8 tokens in two blocks of their own; the second goes on with the first one's.
    tale = Tale(10)
    one, two = tale.request((P, 8)), tale.request((P, 8))
    for live in (one, two):
        tale.kv.admit(live, tale.kv.lookup(live), 8)
        live.num_computed = 8
    assert tale.kv.num_free == 6
    tale.kv.computed(one, 8)
    tale.kv.computed(two, 8)
    assert tale.kv.num_free == 8
    tale.kv.check([(one, 8), (two, 8)])


def test_a_request_s_own_matches_are_not_evicted_for_it() -> None:
    # P is the newest and all there is to evict, but it is what the request has matched.
    tale = Tale(4)
    tale.run((Q, 8))
    tale.run((P, 8))
    live = tale.request((P, 8), (R, 8))
    tale.kv.admit(live, tale.kv.lookup(live), 16)
    assert (tale.cached((P, 8)), tale.cached((Q, 8))) == (2, 0)


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(15, 4), (16, 5), (32, 9)])
def test_one_slot_is_always_spare(num_tokens: int, num_blocks: int) -> None:
    # As KsanaLLM counts, floor((tokens + block) / block), here with blocks of 4.
    tale = Tale(20, is_own=True)
    live = tale.start((P, num_tokens))
    assert tale.kv.num_blocks - tale.kv.num_free == num_blocks
    tale.kv.check([(live, num_tokens)])


def test_a_prompt_may_be_hit_to_its_last_token() -> None:
    own, other = Tale(20, is_own=True), Tale(20)
    for tale, num_blocks in ((own, 4), (other, 3)):
        tale.run((P, 16))
        assert tale.kv.lookup(tale.request((P, 16))).num_blocks == num_blocks


def test_swapping_out_moves_what_nobody_else_uses_and_drops_what_follows_it() -> None:
    # P1 P2 are shared, Q1 Q2 belong to the first; R1, left by a third request, follows Q2.
    tale = Tale(10)
    one = tale.start((P, 8), (Q, 8), (R, 1), output_tokens=9)
    two = tale.start((P, 8), (99, 1), output_tokens=9)
    tale.run((P, 8), (Q, 8), (R, 4))
    assert tale.cached((P, 8), (Q, 8), (R, 4)) == 5
    assert tale.kv.swap_out(one) == (3, 1)  # Q2, Q1 and the block that R begins; R1 is dropped
    assert tale.kv.swap.num_host_blocks == 3
    assert tale.cached((P, 8), (Q, 8)) == 2
    assert tale.kv.num_free == 4  # 10 less P1 P2, the second's block, and 3 on their way
    tale.kv.swapped_out(one)
    assert tale.kv.num_free == 7
    tale.kv.check([(two, 9)])


def test_a_swapped_out_request_keeps_what_it_shares_on_the_device() -> None:
    tale = Tale(6)
    one = tale.start((P, 8), (Q, 4), output_tokens=9)
    two = tale.start((P, 8), (R, 4), output_tokens=9)
    tale.kv.swap_out(one)
    tale.kv.swapped_out(one)
    tale.end(two)
    assert tale.kv.num_free == 4  # all but P1 P2, to which the swapped request refers
    with pytest.raises(InvariantError, match="took 5 blocks with 4 free"):
        tale.kv.take(5)


def test_a_block_stays_while_a_swapped_out_request_counts_on_what_follows_it() -> None:
    # The first two share P1 P2 Q1; one is swapped out, the other ends. The third has P1 P2 and R1 alone.
    tale = Tale(10)
    one = tale.start((P, 8), (Q, 4), output_tokens=9)
    two = tale.start((P, 8), (Q, 4), (99, 1), output_tokens=9)
    assert tale.kv.swap_out(one) == (0, 0)
    tale.kv.swapped_out(one)
    tale.end(two)
    third = tale.start((P, 8), (R, 4), output_tokens=9)
    assert tale.kv.swap_out(third) == (1, 0)
    tale.kv.swapped_out(third)
    assert tale.kv.swap_in(one) == 0
    tale.kv.swapped_in(one)
    tale.kv.check([(one, 12)])


def test_coming_back_makes_blocks_the_newest() -> None:
    tale = Tale(6)
    one = tale.start((P, 8), output_tokens=9)
    tale.kv.swap_out(one)
    tale.kv.swapped_out(one)
    tale.run((Q, 8))
    tale.kv.step += 1
    assert tale.kv.swap_in(one) == 2
    tale.kv.swapped_in(one)
    tale.end(one)
    tale.kv.take(3)  # two unused ones, then P2
    assert (tale.cached((P, 8)), tale.cached((Q, 8))) == (1, 2)


def test_coming_back_merges_with_what_is_there_for_all_who_share_it() -> None:
    # Two requests share P1 P2 on the host; meanwhile a third has computed P1 P2 and is still running.
    tale = Tale(12)
    one = tale.start((P, 8), (Q, 4), output_tokens=9)
    two = tale.start((P, 8), (R, 4), output_tokens=9)
    for live, num_moved in ((one, 1), (two, 3)):
        assert tale.kv.swap_out(live)[0] == num_moved
        tale.kv.swapped_out(live)
    third = tale.start((P, 8), (99, 1), output_tokens=9)
    tale.kv.step += 1
    assert tale.kv.swap_in(one) == 3
    assert tale.kv.swapped_in(one) == 2  # P1 P2 are there twice
    assert tale.kv.swap_in(two) == 1  # R1 alone: the rest is on the device
    assert tale.kv.swapped_in(two) == 0
    tale.kv.check([(one, 12), (two, 12), (third, 9)])
    assert tale.kv.num_blocks - tale.kv.num_free == 2 + 1 + 1 + 1
    assert tale.kv.swap.num_host_blocks == 0


def test_blocks_on_their_way_back_are_copied_once() -> None:
    # The second sets out before the first has arrived, and arrives before it.
    tale = Tale(12)
    one = tale.start((P, 8), (Q, 4), output_tokens=9)
    two = tale.start((P, 8), (R, 4), output_tokens=9)
    for live in (one, two):
        tale.kv.swap_out(live)
        tale.kv.swapped_out(live)
    assert (tale.kv.swap_in(one), tale.kv.swap_in(two)) == (3, 1)
    assert tale.kv.num_free == 8
    assert (tale.kv.swapped_in(two), tale.kv.swapped_in(one)) == (0, 0)
    tale.kv.check([(one, 12), (two, 12)])
    assert tale.kv.num_free == 8


def test_a_request_dropped_on_its_way_gives_all_back() -> None:
    tale = Tale(12)
    out, back = tale.start((P, 8), (Q, 3), output_tokens=9), tale.start((R, 9), output_tokens=9)
    tale.kv.swap_out(back)
    tale.kv.swapped_out(back)
    tale.kv.swap_in(back)
    tale.kv.drop_swapped(back)
    tale.kv.swap_out(out)
    tale.kv.drop_swapped(out)
    tale.kv.check([])
    assert (tale.kv.num_free, tale.kv.swap.num_host_blocks) == (12, 0)


def test_without_sharing_requests_can_still_be_swapped() -> None:
    tale = Tale(6, shares=False)
    one = tale.start((P, 8), output_tokens=9)
    assert tale.cached((P, 8)) == 0
    assert tale.kv.swap_out(one) == (2, 0)
    tale.kv.swapped_out(one)
    assert tale.kv.num_free == 6
    assert tale.kv.swap_in(one) == 2
    tale.kv.swapped_in(one)
    tale.kv.check([(one, 8)])
    assert tale.kv.stats.query_tokens == 0


@settings(max_examples=400, deadline=None)
@given(
    played=moves("out", "out", "in", "in", "drop"),
    num_blocks=st.sampled_from([8, 14, 30]),
    chunk=st.sampled_from([3, 8, 64]),
)
def test_hits_evictions_and_swaps_are_the_literal_tree_s(
    played: list[Prompt | int | tuple[str, int]], num_blocks: int, chunk: int
) -> None:
    play(played, num_blocks, chunk)


def test_the_comparison_sees_hits_and_evictions() -> None:
    turns = [Prompt(i % 3, 12, 3, 6, goes_on=i % 2 == 1) for i in range(20)]
    both = play([move for turn in turns for move in (turn, 5, ("out", 0), 2, ("in", 0))], 16, 8)
    assert both.num_hit_blocks > 20
    assert both.num_evicting > 10


def play(played: list[Prompt | int | tuple[str, int]], num_blocks: int, chunk: int) -> CacheSideBySide:
    both = CacheSideBySide(
        KsanaKvCache(num_blocks=num_blocks, block_size=4), LiteralKsanaCache(num_blocks, 4), chunk=chunk
    )
    for move in played:
        if isinstance(move, Prompt):
            both.arrive(move)
        elif isinstance(move, int):
            for _ in range(move):
                both.step()
        elif move[0] == "give up":
            both.give_up(move[1])
        elif move[0] == "out":
            both.swap_out(move[1])
        else:
            both.swap_in(move[1], drops=move[0] == "drop")
    return both
