"""Several samples of one request: what they share, when the request ends, and that leaps stay exact."""

from __future__ import annotations

import math

import numpy as np
from harness import make_demand, play, request_rows, step_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyStepModel

from simllm.sim.policy.samples import live_requests
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Spec
from simllm.sim.request import ContentRun, Request
from simllm.sim.workload.demand import Demand

SPEC = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=False)


def sampled(rows: list[tuple[float, int, int]], num_samples: list[int]) -> Demand:
    demand = make_demand(rows)
    demand.num_samples = np.array(num_samples)
    return demand


def test_samples_share_a_prompt_that_nobody_else_has_and_differ_in_their_answers() -> None:
    first, second, third = live_requests(Request(5, 0.0, 20, 4, num_samples=3), 4)
    assert first.request.content == second.request.content == third.request.content
    assert [live.index for live in (first, second, third)] == [5, 5, 5]
    assert len({live.request.index for live in (first, second, third)}) == 3
    assert first.request.index == 5, "a later turn continues the first sample's answer"


def test_samples_keep_the_content_that_their_prompt_has() -> None:
    content = (ContentRun(3, 20),)
    assert all(
        live.request.content == content
        for live in live_requests(Request(0, 0.0, 20, 4, content, num_samples=2), 4)
    )


def test_two_samples_of_12_tokens_compute_the_shared_blocks_once() -> None:
    # Blocks of 4: the second finds 8 of 12 tokens (one must be computed), so 12 + 4 tokens in the first step.
    recorder, _ = play(sampled([(0.0, 12, 3)], [2]), spec=SPEC, caches=True)
    assert recorder.steps is not None
    assert recorder.steps[0].num_prefill_tokens == 16
    # 3 blocks of the first and one of the second's own
    assert recorder.steps[0].kv_blocks_used == 4


def test_without_a_prefix_cache_samples_share_nothing() -> None:
    recorder, _ = play(sampled([(0.0, 12, 3)], [2]), spec=SPEC, caches=False)
    assert recorder.steps is not None
    assert (recorder.steps[0].num_prefill_tokens, recorder.steps[0].kv_blocks_used) == (24, 6)


def test_a_request_ends_with_its_last_sample_and_has_the_tokens_of_all() -> None:
    # One slot: the samples run one after the other, 5 steps of 10 ms each.
    spec = VllmV1Spec(max_num_seqs=1, max_num_batched_tokens=64, async_scheduling=False)
    recorder, _ = play(sampled([(0.0, 8, 5)], [3]), spec=spec)
    assert recorder.output_tokens[0] == 15
    assert math.isclose(recorder.first_token_at[0], 0.010)
    assert math.isclose(recorder.finished_at[0], 0.150)
    assert recorder.scheduled_at[0] == 0.0


def test_one_client_waits_for_all_samples_before_it_sends_again() -> None:
    demand = make_demand([(0.0, 8, 5), (0.0, 8, 5)], num_clients=1)
    demand.num_samples = np.array([2, 1])
    recorder, _ = play(
        demand, spec=VllmV1Spec(max_num_seqs=1, max_num_batched_tokens=64, async_scheduling=False)
    )
    assert math.isclose(recorder.arrived_at[1], 0.100)


REQUESTS = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 90), st.integers(1, 40), st.integers(1, 4)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(rows=REQUESTS, caches=st.booleans(), num_blocks=st.sampled_from([40, 60, 400]), is_async=st.booleans())
def test_leaps_change_nothing_and_every_sample_is_counted(
    rows: list[tuple[float, int, int, int]], caches: bool, num_blocks: int, is_async: bool
) -> None:
    rows = sorted(rows)
    spec = VllmV1Spec(max_num_seqs=8, max_num_batched_tokens=64, async_scheduling=is_async)
    leapt, plain = (
        play(
            sampled([row[:3] for row in rows], [row[3] for row in rows]),
            spec=spec,
            model=ToyStepModel(base_s=math.pi / 300, token_s=0.0007, context_s=1.3e-5),
            num_blocks=num_blocks,
            caches=caches,
            leaps=leaps,
            checks_blocks=True,
        )[0]
        for leaps in (True, False)
    )
    np.testing.assert_allclose(request_rows(leapt), request_rows(plain), rtol=1e-9)
    np.testing.assert_allclose(step_rows(leapt), step_rows(plain), rtol=1e-9, atol=1e-12)
    assert list(plain.output_tokens) == [outputs * samples for _, _, outputs, samples in rows]
