"""Inter-token latencies of one request: exact, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simllm.errors import SimllmError
from simllm.sim.outcome.results import Result

from .handmade import make_demand, make_meta, make_recorder


def test_gaps_are_the_steps_between_first_and_last_token(result: Result) -> None:
    assert result.itls(0).tolist() == pytest.approx([0.1, 0.3])
    assert result.itls(1).tolist() == []
    assert result.itls(2).tolist() == pytest.approx([0.10, 0.12, 0.14, 0.16])


def test_gaps_add_up_to_the_time_after_the_first_token(result: Result) -> None:
    for request_id, row in result.requests.iloc[:3].iterrows():
        rest_s = row["finished_at"] - row["first_token_at"]
        assert result.itls(request_id).sum() == pytest.approx(rest_s)


def test_a_delay_in_the_front_end_does_not_hide_the_steps() -> None:
    recorder = make_recorder()
    for row in range(3):
        recorder.first_token_at[row] += 0.45
        recorder.finished_at[row] += 0.35
    result = Result(recorder, make_demand(), make_meta())
    assert result.itls(2).tolist() == pytest.approx([0.10, 0.12, 0.14, 0.16])


@pytest.mark.parametrize(
    ("request_id", "message"),
    [(-1, "requests 0 to 3"), (4, "requests 0 to 3"), (3, "did not finish")],
)
def test_requests_without_tokens_are_refused(result: Result, request_id: int, message: str) -> None:
    with pytest.raises(SimllmError, match=message):
        result.itls(request_id)


def test_a_preempted_request_is_refused() -> None:
    recorder = make_recorder()
    recorder.num_preemptions[0] = 1
    with pytest.raises(SimllmError, match="was preempted"):
        Result(recorder, make_demand(), make_meta()).itls(0)


def test_a_request_that_missed_a_step_is_refused() -> None:
    recorder = make_recorder()
    recorder.output_tokens[2] = 4  # four tokens, but five step ends
    with pytest.raises(SimllmError, match="got no token in some step"):
        Result(recorder, make_demand(), make_meta()).itls(2)


def test_without_steps_token_times_are_unknown(build: Callable[..., Result]) -> None:
    with pytest.raises(SimllmError, match="not recorded"):
        build(record_steps=False).itls(0)
