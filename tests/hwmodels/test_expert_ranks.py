"""Experts on ranks: what chance and popularity load the busiest one with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.expert_load import chosen_shares
from simllm.hwmodels.expert_ranks import ExpertRanks, ExpertRouting, balanced_loads, expected_largest
from simllm.hwmodels.model import MoeSpec

QWEN = MoeSpec(num_experts=128, top_k=8, intermediate_size=768)


def drawn_picks(num_ranks: int, num_tokens: int, num_draws: int = 4000) -> float:
    """Returns the busiest rank's picks per token, by drawing experts."""
    rng = np.random.default_rng(1)
    per_rank = [QWEN.num_experts // num_ranks] * num_ranks
    picks = rng.multivariate_hypergeometric(per_rank, QWEN.top_k, size=(num_draws, num_tokens)).sum(axis=1)
    return float(picks.max(axis=1).mean()) / num_tokens


def test_one_rank_has_all_picks():
    assert ExpertRanks(QWEN, 1).picks(10) == pytest.approx(8)


def test_the_busier_of_two_ranks_has_five_of_eight_experts_of_a_lone_token():
    # Mean 4; the difference of two hypergeometric halves: 4 + E|X - 4| with X of 8 draws from 64 + 64.
    assert ExpertRanks(QWEN, 2).picks(1) == pytest.approx(5.08, abs=0.03)


@pytest.mark.parametrize("num_ranks", [2, 4, 8, 32])
@pytest.mark.parametrize("num_tokens", [1, 2, 8, 64, 256])
def test_the_busiest_rank_is_as_busy_as_when_experts_are_drawn(num_ranks, num_tokens):
    expected = drawn_picks(num_ranks, num_tokens, 400 if num_tokens > 8 else 4000)
    assert ExpertRanks(QWEN, num_ranks).picks(num_tokens) == pytest.approx(expected, rel=0.04)


@settings(deadline=None, max_examples=40)
@given(ranks=st.sampled_from([2, 4, 8, 16]), tokens=st.integers(1, 4000), skew=st.floats(0, 1.5))
def test_loads_lie_between_the_mean_and_all(ranks, tokens, skew):
    routed = ExpertRanks(QWEN, ranks, ExpertRouting(skew))
    assert QWEN.top_k / ranks <= routed.picks(tokens) <= QWEN.top_k
    assert routed.picks(2 * tokens) <= routed.picks(tokens) * 1.01


def test_skew_loads_one_rank_and_balancing_with_copies_unloads_it():
    skewed = ExpertRanks(QWEN, 16, ExpertRouting(0.8)).imbalance(1024)
    balanced = ExpertRanks(QWEN, 16, ExpertRouting(0.8, is_balanced=True)).imbalance(1024)
    copied = ExpertRanks(QWEN, 16, ExpertRouting(0.8, is_balanced=True, num_redundant=16)).imbalance(1024)
    assert skewed > 2 > balanced > copied > 1


def test_copies_go_to_the_most_loaded_experts_and_packing_evens_out():
    # Loads 6, 2, 1, 1: two copies of the first one give 2, 2, 2, 2, 1, 1; on two ranks of three: 5 and 5.
    assert balanced_loads(np.array([6.0, 2.0, 1.0, 1.0]), 2, 2).tolist() == [5.0, 5.0]


def test_packing_gives_all_ranks_as_many_experts():
    # First rank 5, second 3 + 2, then first + 2; second + 1, which fills it with three, so first + 1.
    assert sorted(balanced_loads(np.array([5.0, 3.0, 2.0, 2.0, 1.0, 1.0]), 2, 0).tolist()) == [6.0, 8.0]


def test_the_largest_of_many_is_the_same_by_counts_and_by_the_normal_law():
    below, above = expected_largest(255.9, 255.0, 8), expected_largest(256.0, 255.0, 8)
    assert below == pytest.approx(above, rel=0.003)


def test_shares_of_ranks_add_up():
    shares = chosen_shares(128, 8, 0.9)
    assert balanced_loads(shares, 8, 8).sum() == pytest.approx(8)


@pytest.mark.parametrize(
    ("routing", "what"),
    [
        ({"skew": -1.0}, "at least 0"),
        ({"num_redundant": 4}, "needs enable_eplb"),
    ],
)
def test_routing_that_makes_no_sense_is_refused(routing, what):
    with pytest.raises(SimllmError, match=what):
        ExpertRouting(**routing)


def test_copies_must_divide_over_the_ranks():
    with pytest.raises(SimllmError, match="128 experts and 3 copies cannot be shared out evenly over ep=2"):
        ExpertRanks(QWEN, 2, ExpertRouting(is_balanced=True, num_redundant=3))
