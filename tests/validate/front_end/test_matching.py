"""Requests matched to the steps that served them, and records that are not theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import TraceError
from simllm.sim.validate.front_end.matching import RequestSteps, match_requests
from simllm.sim.validate.recorded_steps import RecordedStep

from .made import HERE, step


def matched(
    requests: Sequence[tuple[int, int, int]], steps: Sequence[RecordedStep], sent_at: Sequence[float] = ()
) -> RequestSteps:
    """Matches (prompt, output, cached tokens), sent one after the other unless `sent_at` says otherwise."""
    prompts, outputs, cached = np.array(requests).T
    instants = np.array(sent_at or range(len(requests)), dtype=float)
    return match_requests(instants, prompts, outputs, cached, steps, HERE)


def test_chunks_tell_first_tokens_and_the_number_of_tokens_the_last() -> None:
    # A budget of 6: the first prompt of 5 tokens and 1 of the second's 4; then its rest beside a decode.
    steps = [step(0, (5, 0), (1, 0)), step(1, (3, 1)), step(2), step(1)]
    found = matched([(5, 3, 0), (4, 3, 0)], steps)
    assert found.order.tolist() == [0, 1]
    assert found.admitted.tolist() == [0, 0]
    assert found.first.tolist() == [0, 1]
    assert found.last.tolist() == [2, 3]


def test_a_prompt_s_single_token_is_recorded_as_a_decode() -> None:
    found = matched([(5, 2, 0), (3, 1, 0)], [step(0, (5, 0), (2, 0)), step(2)])
    assert (found.first.tolist(), found.last.tolist()) == ([0, 1], [1, 1])


def test_a_prompt_begins_after_what_the_prefix_cache_holds_of_it() -> None:
    found = matched([(20, 1, 16), (20, 1, 0)], [step(0, (4, 16)), step(0, (20, 0))])
    assert found.first.tolist() == [0, 1]


def test_requests_sent_at_nearly_the_same_instant_may_be_admitted_the_other_way_round() -> None:
    found = matched([(7, 2, 0), (9, 2, 0)], [step(0, (9, 0)), step(1, (7, 0)), step(1)])
    assert found.order.tolist() == [1, 0]
    assert found.first.tolist() == [0, 1]


def test_requests_are_in_the_order_of_sending_not_of_the_file() -> None:
    found = matched([(7, 1, 0), (9, 1, 0)], [step(0, (9, 0)), step(0, (7, 0))], sent_at=(2.0, 1.0))
    assert found.order.tolist() == [1, 0]


def test_what_comes_after_the_end_of_the_record_lies_beyond_it() -> None:
    found = matched([(5, 9, 0), (8, 1, 0), (4, 1, 0)], [step(0, (5, 0)), step(1, (6, 0))])
    assert found.admitted.tolist() == [0, 1, 2]
    assert found.first.tolist() == [0, 2, 2]
    assert found.last.tolist() == [8, 2, 2]


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (
            [step(0, (5, 0)), step(1, (4, 0))],
            "step 2 of the record holds a chunk of 4 tokens after 0 that is",
        ),
        ([step(0, (5, 0)), step(0, (3, 0))], "step 2 .* holds 0 decodes where its requests have 1"),
        ([step(0, (5, 0), (3, 0)), step(2)], "step 2 .* holds 2 decodes where its requests have 1"),
        ([step(0, (5, 0)), step(1)._replace(num_preempted=1)], "has preemptions"),
    ],
)
def test_a_record_that_the_requests_cannot_have_left_is_refused(steps: list[RecordedStep], why: str) -> None:
    with pytest.raises(TraceError, match=rf"^run\.json: {why}"):
        matched([(5, 3, 0), (3, 1, 0)], steps)


def served(
    requests: Sequence[tuple[int, int]], budget: int
) -> tuple[list[RecordedStep], list[int], list[int]]:
    """An engine of one budget, first come, first served: its record, and the true steps of each request."""
    computed, firsts, given = [0] * len(requests), [0] * len(requests), [0] * len(requests)
    lasts, steps = list(firsts), []
    while any(num < output for num, (_, output) in zip(given, requests, strict=True)):
        live = [row for row, num in enumerate(given) if 0 < num < requests[row][1]]
        num_decodes, left, chunks = len(live), budget - len(live), []
        for row, (prompt, _) in enumerate(requests):
            take = min(prompt - computed[row], left)
            if take > 0:
                if take == 1:
                    num_decodes += 1
                else:
                    chunks.append((take, computed[row]))
                computed[row], left = computed[row] + take, left - take
                if computed[row] == prompt:
                    live.append(row)
        for row in live:
            firsts[row] = firsts[row] if given[row] else len(steps)
            given[row], lasts[row] = given[row] + 1, len(steps)
        steps.append(step(num_decodes, *chunks))
    return steps, firsts, lasts


REQUESTS = st.lists(st.tuples(st.integers(2, 20), st.integers(1, 6)), min_size=1, max_size=9)


@given(REQUESTS, st.integers(10, 40))
def test_every_request_of_an_engine_is_found_in_its_record(
    requests: list[tuple[int, int]], budget: int
) -> None:
    steps, firsts, lasts = served(requests, budget)
    found = matched([(prompt, output, 0) for prompt, output in requests], steps)
    rows = np.argsort(found.order)
    assert (found.first[rows].tolist(), found.last[rows].tolist()) == (firsts, lasts)
