"""The scheduler, step by step, with recorded step times in place of predicted ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simllm.hwmodels.step import Chunk
from simllm.sim.validate.policy_check import PolicyCheck, check_policy
from simllm.sim.validate.recorded_steps import RecordedStep, read_steps
from simllm.sim.validate.visibility import admissions, arrivals_as_seen, first_seen

from .handmade import write_bench, write_steps

# One request of 100 tokens, three answers of one step each: prefill, then decodes of 101 and 102 tokens.
LONE = {"input_lens": [100], "output_lens": [3], "start_times": [0.0], "ttfts": [0.1], "latencies": [0.3]}
LONE_STEPS = ["2000,12000,0,0,100:100", "2500,20000,1,101,", "12500,30000,1,102,"]
# A second request, sent at 3 ms, is first seen when the third step is decided.
TWO = {
    "input_lens": [100, 40],
    "output_lens": [4, 1],
    "start_times": [0.0, 0.003],
    "ttfts": [0.1, 0.1],
    "latencies": [0.3, 0.1],
}
TWO_STEPS = ["2000,12000,0,0,100:100", "2500,20000,1,101,", "12500,30000,1,102,40:40", "20500,40000,1,103,"]


def checked(folder: Path, bench: dict[str, object], rows: list[str]) -> PolicyCheck:
    path = write_bench(folder, cached_tokens=None, itls=None, **bench)
    return check_policy(path, write_steps(folder, rows))


def test_the_scheduler_is_followed_step_by_step_with_recorded_times(tmp_path: Path) -> None:
    check = checked(tmp_path, LONE, LONE_STEPS)
    for followed in (check.as_modelled, check.as_seen):
        assert followed is not None
        assert (followed.num_steps, followed.num_followed, followed.departure) == (3, 3, None)


def test_the_first_departure_is_told_with_both_sides(tmp_path: Path) -> None:
    followed = checked(tmp_path, LONE, [*LONE_STEPS[:2], LONE_STEPS[2].replace("102", "140")]).as_modelled
    assert (followed.num_followed, followed.num_agreeing) == (2, 2)
    assert "step 3, recorded [1 decodes of 140 tokens" in str(followed.departure)
    assert "the same prompts have begun" in str(followed.departure)


def test_a_request_seen_later_than_modelled_is_told_and_followed_as_seen(tmp_path: Path) -> None:
    late = [*TWO_STEPS[:2], "12500,30000,1,102,", "20500,40000,1,103,40:40"]
    assert checked(tmp_path, TWO, TWO_STEPS).as_modelled.departure is None
    check = checked(tmp_path, TWO, late)
    # Decided at 12.5 ms, sent at 3 ms: the simulation sees it, the recorded engine did not.
    assert check.as_modelled.num_followed == 2
    assert "arrival visibility: request 1 has begun on the simulation only" in str(
        check.as_modelled.departure
    )
    assert "sent 9.50 ms before" in str(check.as_modelled.departure)
    assert check.as_seen is not None
    assert check.as_seen.num_followed == 4


def test_chunks_that_go_on_begin_no_new_request() -> None:
    steps = [[Chunk(50, 0)], [Chunk(30, 50), Chunk(20, 0)], [Chunk(10, 80), Chunk(5, 20)], []]
    assert admissions(steps) == [1, 2, 2, 2]


def test_a_request_is_seen_when_it_waits_or_is_admitted(tmp_path: Path) -> None:
    # One admitted; then one more and one left waiting, which is admitted in the third step.
    rows = ["0,10,0,0,8:8,0,0", "5,20,1,9,8:8,1,0", "15,30,2,19,8:8,0,0"]
    steps = read_steps(write_steps(tmp_path, rows))
    assert first_seen(steps, 4) == [0, 1, 1, None]
    preempted = [*rows[:2], "15,30,2,19,8:8,0,1"]
    assert first_seen(read_steps(write_steps(tmp_path, preempted)), 4) is None


def test_arrivals_as_seen_lie_between_two_decisions() -> None:
    def step(scheduled_at: float, duration_s: float, is_busy: bool) -> RecordedStep:
        return RecordedStep(scheduled_at, 0.0, duration_s, is_busy, 1, 1, ())

    # Decided at 2, 2 (both when the engine wakes), 5 (end of the first) and 7 (end of the second).
    steps = [step(2.0, 3.0, False), step(2.1, 2.0, True), step(5.1, 2.0, True), step(7.1, 1.0, True)]
    arrivals = arrivals_as_seen(steps, [0, 2, 3, None])
    np.testing.assert_allclose(arrivals, [2.0, (2 + 5) / 2, (5 + 7) / 2, 11.0])
