"""Reasoning and answers: what is drawn, what is cut, and that tokens by kind add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.sim.workload import Demand
from simllm.sim.workload.reasoning import limited, part_of, sample_ratios
from simllm.sim.workload.request_spec import ReasoningLimits, ReasoningRatio

Build = Callable[..., Demand]
BASE: dict[str, Any] = {
    "kind": "synthetic",
    "num_requests": 2000,
    "arrivals": {"kind": "burst"},
    "prompt_tokens": {"kind": "fixed", "tokens": 10},
    "output_tokens": {"kind": "fixed", "tokens": 100},
}


def test_reasoning_in_tokens_comes_on_top_of_the_answer(build: Build) -> None:
    demand = build({**BASE, "reasoning": {"tokens": {"kind": "fixed", "tokens": 40}}})
    assert set(demand.output_tokens.tolist()) == {140}
    assert set(demand.reasoning_tokens.tolist()) == {40}


def test_reasoning_as_a_ratio_is_part_of_the_output(build: Build) -> None:
    demand = build({**BASE, "reasoning": {"ratio": {"edges": [0.25, 0.25]}}})
    assert set(demand.output_tokens.tolist()) == {100}
    assert set(demand.reasoning_tokens.tolist()) == {25}


def test_a_budget_cuts_thought_and_leaves_the_answer(build: Build) -> None:
    reasoning = {"tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 90}, "budget_tokens": 30}
    demand = build({**BASE, "reasoning": reasoning})
    assert demand.reasoning_tokens.max() == 30
    assert set((demand.output_tokens - demand.reasoning_tokens).tolist()) == {100}


def test_a_share_of_the_requests_reasons(build: Build) -> None:
    demand = build({**BASE, "reasoning": {"tokens": {"kind": "fixed", "tokens": 40}, "share": 0.3}})
    # 2,000 draws of 0.3: standard deviation sqrt(0.21 / 2000) = 0.010.
    assert (demand.reasoning_tokens > 0).mean() == pytest.approx(0.3, abs=0.05)


def test_early_stops_are_spread_over_the_reasoning() -> None:
    limits = ReasoningLimits(early_stop_share=1.0)
    rng = np.random.default_rng(0)
    size = 4000
    _, thought = limited(limits, np.full(size, 5), np.full(size, 1000), rng)
    # Uniform on (0, 1000]: mean 500, standard deviation of the mean 289 / sqrt(4000) = 4.6.
    assert thought.mean() == pytest.approx(500, abs=25)


def test_reasoning_does_not_change_what_else_is_drawn(build: Build) -> None:
    plain = build({**BASE, "prompt_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 99}})
    fields = {**BASE, "prompt_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 99}}
    thinking = build({**fields, "reasoning": {"tokens": {"kind": "fixed", "tokens": 4}}})
    np.testing.assert_array_equal(plain.prompt_tokens, thinking.prompt_tokens)


def test_ratios_fill_their_bins_by_weight() -> None:
    spec = ReasoningRatio(edges=(0.0, 0.5, 1.0), weights=(1, 3))
    drawn = sample_ratios(spec, np.random.default_rng(1), 4000)
    # Standard deviation of the share: sqrt(0.75 * 0.25 / 4000) = 0.007.
    assert (drawn > 0.5).mean() == pytest.approx(0.75, abs=0.03)


@settings(deadline=None)
@given(
    outputs=st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    ratio=st.floats(0, 1),
    share=st.floats(0, 1),
    budget=st.none() | st.integers(1, 1000),
)
def test_tokens_by_kind_add_up(outputs: list[int], ratio: float, share: float, budget: int | None) -> None:
    output_tokens = np.array(outputs)
    thought = part_of(output_tokens, np.full(len(outputs), ratio))
    answer = output_tokens - thought
    limits = ReasoningLimits(budget_tokens=budget, early_stop_share=share)
    total, reasoning = limited(limits, answer, thought, np.random.default_rng(0))
    np.testing.assert_array_equal(total, answer + reasoning)
    assert (answer >= 1).all()
    assert (reasoning <= thought).all()
    assert (reasoning >= 0).all()
