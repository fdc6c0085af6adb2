"""Requests by rank: who is admitted first and who is preempted, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.scheduler import make_scheduler
from simllm.sim.policy.scheduler.ranked import RankedScheduler, RankedSpec, rank_of
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Scheduler, VllmV1Spec
from simllm.sim.request import Request

from .drive import Story, admitted
from .engine_laws import Rows, check_laws, loads

SPEC = RankedSpec(max_num_seqs=2, max_num_batched_tokens=64, async_scheduling=False)


def spec(**fields: object) -> RankedSpec:
    return SPEC.model_copy(update=fields)


def by_priority(story: Story, *priorities: int) -> None:
    for priority in priorities:
        request = Request(story.num_added, 0.0, 10, 5, priority=priority)
        story.num_added += 1
        assert story.scheduler.add(request) is None


def test_the_lowest_priority_number_is_admitted_first_of_equals_the_earliest() -> None:
    story = Story(SPEC)
    by_priority(story, 2, 1, 0, 1)
    assert admitted(story.run()) == [2, 1]


def test_vllm_with_policy_priority_is_served_by_rank() -> None:
    story = Story(VllmV1Spec(max_num_seqs=2, max_num_batched_tokens=64, policy="priority"))
    assert isinstance(story.scheduler, RankedScheduler)
    by_priority(story, 1, 1, 0)
    assert admitted(story.step()) == [2, 0]


def test_vllm_by_default_is_served_in_the_order_of_arrival() -> None:
    assert isinstance(Story(VllmV1Spec()).scheduler, VllmV1Scheduler)


def test_the_shortest_job_is_admitted_first() -> None:
    story = Story(spec(order="shortest_job"))
    for output_tokens in (30, 10, 20):
        story.add(10, output_tokens)
    assert admitted(story.run()) == [1, 2]


def test_a_predictor_errs_about_a_request_the_same_way_each_time() -> None:
    noisy = rank_of(spec(order="shortest_job", length_error=0.5))
    request = Request(7, 0.0, 10, 100)
    assert noisy(request) == noisy(request) != rank_of(spec(order="shortest_job"))(request)


def test_the_least_slack_is_due_less_the_time_of_the_prompt() -> None:
    # Due at 0.5 + 1.0; 10,000 tokens at 20,000 a second take 0.5.
    rank = rank_of(spec(order="least_slack", ttft_slo_ms=1000.0, prefill_tokens_per_s=20_000.0))
    assert rank(Request(0, 0.5, 10_000, 1))[0] == pytest.approx(1.0)
    # A long prompt that came later must begin first.
    assert rank(Request(1, 0.6, 16_000, 1)) < rank(Request(0, 0.5, 10_000, 1))


def test_the_highest_rank_loses_its_blocks() -> None:
    # 6 blocks of 4: three requests of 7 tokens fill them and each needs one more soon.
    story = Story(spec(max_num_seqs=3), num_blocks=6, block_size=4)
    for priority in (1, 9, 0):
        story.scheduler.add(Request(story.num_added, 0.0, 7, 8, priority=priority))
        story.num_added += 1
    story.run()
    preempted = []
    while not preempted:
        batch = story.run()
        preempted = [live.index for live in batch.paused]
    assert preempted == [1]


def test_both_ways_to_ask_for_priorities_give_the_same_policy() -> None:
    kv = Story(SPEC).kv
    one = make_scheduler(VllmV1Spec(policy="priority"), kv=kv, max_model_len=100)
    other = make_scheduler(RankedSpec(), kv=kv, max_model_len=100)
    assert type(one) is type(other)


@given(
    rows=loads(),
    order=st.sampled_from(["priority", "shortest_job", "least_slack"]),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(8, 64),
    threshold=st.sampled_from([0, 5]),
    overlaps=st.booleans(),
    num_blocks=st.integers(25, 40),
    caches=st.booleans(),
)
def test_it_keeps_the_laws_under_any_load(
    rows: Rows,
    order: str,
    max_num_seqs: int,
    budget: int,
    threshold: int,
    overlaps: bool,
    num_blocks: int,
    caches: bool,
) -> None:
    check_laws(
        rows,
        spec(
            order=order,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            long_prefill_token_threshold=threshold,
            async_scheduling=overlaps,
        ),
        num_blocks=num_blocks,
        block_size=4,
        caches=caches,
    )
