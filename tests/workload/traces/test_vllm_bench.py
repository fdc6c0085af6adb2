from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from simllm.errors import ScenarioError, TraceError
from simllm.sim.request import ContentRun
from simllm.sim.workload import Demand

Build = Callable[..., Demand]
Play = Callable[..., Demand]

RESULT: dict[str, Any] = {
    "duration": 9.0,
    "request_rate": 2.0,
    "max_concurrency": None,
    "input_lens": [10, 20, 30],
    "output_lens": [1, 2, 3],
    "start_times": [0.25, 0.5, 4.0],
    "errors": ["", "", ""],
}
CLOSED = {"request_rate": "inf", "max_concurrency": 2}


@pytest.fixture
def play(build: Build, put: Callable[[str, str], str]) -> Play:
    """Plays a result with some keys changed, or left out if None; `spec` are fields of the workload."""

    def played(spec: dict[str, Any] | None = None, **changes: Any) -> Demand:
        result = {name: value for name, value in {**RESULT, **changes}.items() if value is not None}
        path = put("run.json.gz", json.dumps(result))
        return build({"kind": "vllm_bench", "path": path, **(spec or {})})

    return played


def test_an_open_run_is_replayed_at_its_start_times(play: Play) -> None:
    demand = play()
    assert demand.arrived_at.tolist() == [0.25, 0.5, 4.0]
    assert demand.prompt_tokens.tolist() == [10, 20, 30]
    assert demand.output_tokens.tolist() == [1, 2, 3]
    assert demand.num_clients is None


def test_readings_of_a_clock_count_from_the_first_request(play: Play) -> None:
    # vLLM writes time.perf_counter(): later than the run's duration, so no instants of the run.
    assert play(start_times=[1000.25, 1000.5, 1004.0]).arrived_at.tolist() == [0.0, 0.25, 3.75]
    assert play(duration=None).arrived_at.tolist() == [0.0, 0.25, 3.75]


def test_a_clock_is_recognised_even_if_only_its_first_readings_are_played(play: Play) -> None:
    demand = play({"num_requests": 2}, start_times=[5.0, 6.0, 10.0])
    assert demand.arrived_at.tolist() == [0.0, 1.0]


def test_a_closed_loop_is_recognised_and_its_clients_begin_as_recorded(play: Play) -> None:
    demand = play(**CLOSED)
    assert demand.num_clients == 2
    # Row 2 waits for an answer; it may be sent as soon as both clients have begun.
    assert demand.arrived_at.tolist() == [0.25, 0.5, 0.5]


def test_the_key_arrivals_says_whether_the_loop_was_closed(play: Play) -> None:
    assert play(**CLOSED, arrivals="trace").num_clients is None
    assert play(max_concurrency=2, arrivals="closed").num_clients == 2


def test_a_limited_rate_with_a_cap_is_replayed(play: Play) -> None:
    assert play(max_concurrency=2).num_clients is None


def test_a_closed_loop_can_be_replayed_at_its_start_times(play: Play) -> None:
    demand = play({"arrivals": "replay"}, **CLOSED)
    assert (demand.num_clients, demand.arrived_at.tolist()) == (None, [0.25, 0.5, 4.0])


def test_an_open_run_can_be_played_as_a_closed_loop_without_start_times(play: Play) -> None:
    demand = play({"arrivals": "closed_loop", "num_clients": 8}, start_times=None)
    assert (demand.num_clients, demand.arrived_at.tolist()) == (8, [0.0, 0.0, 0.0])


def test_an_open_run_has_no_clients_of_its_own(play: Play) -> None:
    with pytest.raises(TraceError, match="was not recorded as a closed loop: give num_clients"):
        play({"arrivals": "closed_loop"})


def test_clients_without_a_closed_loop_are_refused(play: Play) -> None:
    with pytest.raises(ValidationError, match="num_clients needs arrivals: closed_loop"):
        play({"num_clients": 8})


def test_a_closed_loop_cannot_be_played_faster(play: Play) -> None:
    assert play({"rate_scale": 2.0}).arrived_at.tolist() == [0.125, 0.25, 2.0]
    with pytest.raises(ScenarioError, match="closed loop"):
        play({"rate_scale": 2.0}, **CLOSED)


def test_failed_requests_are_left_out_and_noted(play: Play) -> None:
    demand = play(errors=["", "timeout", ""], output_lens=[1, 0, 3])
    assert demand.prompt_tokens.tolist() == [10, 30]
    assert demand.arrived_at.tolist() == [0.25, 4.0]
    assert demand.notes == ("1 requests that failed when recorded are left out",)


def test_only_the_first_answered_requests_are_played_if_so_asked(play: Play) -> None:
    demand = play({"num_requests": 2}, errors=["refused", "", ""])
    assert demand.prompt_tokens.tolist() == [20, 30]


def test_block_hashes_become_runs_and_an_uncovered_tail_its_own(play: Play) -> None:
    hashes = [["a"], ["a", "b"], ["a", "c", "d"]]
    demand = play(prompt_block_hashes=hashes, prompt_hash_block_tokens=8)
    # Prompts of 10, 20, 30 tokens: 1 full block and 2 tokens, 2 and 4, then 3 of the 4 blocks.
    first, second, third = demand.contents or ()
    assert first == (ContentRun(0, 8), ContentRun(1, 2))
    assert second == (ContentRun(0, 8), ContentRun(2, 8), ContentRun(3, 4))
    assert third == (ContentRun(0, 8), ContentRun(4, 8), ContentRun(5, 8), ContentRun(6, 6))


def test_a_hash_of_the_last_part_of_a_block_covers_what_is_left(play: Play) -> None:
    hashes = [[1, 2], [1, 2, 3], [1, 2, 3, 4]]
    demand = play(prompt_block_hashes=hashes, prompt_hash_block_tokens=8)
    assert (demand.contents or ())[0] == (ContentRun(0, 8), ContentRun(1, 2))


def test_images_become_tokens_of_28_by_28_pixels(play: Play) -> None:
    demand = play(images=[[[56, 84]], [], [[28, 28], [56, 56]]])
    # 2 x 3; none; 1 + 4.
    assert demand.image_tokens is not None
    assert demand.image_tokens.tolist() == [6, 0, 5]
    assert play(images=[[], [], []]).image_tokens is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"input_lens": 30}, "has no list 'input_lens'; was it saved with --save-detailed?"),
        ({"start_times": None}, "has no list 'start_times'; was it saved with --save-detailed?"),
        ({"output_lens": [1, 2]}, "output_lens has 2 items, input_lens 3"),
        ({"output_lens": [1, 0, 3]}, "output_lens[1] must be a whole number >= 1 (got 0)"),
        ({"input_lens": [1, 2, "x"]}, 'input_lens[2] must be a whole number >= 1 (got "x")'),
        ({"start_times": [0.0, -1.0, 2.0]}, "start_times[1] must be a number >= 0 (got -1.0)"),
        ({"errors": ["x", "x", "x"]}, "holds no answered requests"),
        (
            {"prompt_block_hashes": [[1]] * 3},
            "has no 'prompt_hash_block_tokens'; did you mean 'prompt_block_hashes'?",
        ),
        (
            {"prompt_block_hashes": [[1]] * 3, "prompt_hash_block_tokens": 8},
            "prompt_block_hashes[1] must have an id for each block of 8 of its 20 tokens",
        ),
        ({"images": [[[280, 280]], [], []]}, "images[0] makes 100 tokens, more than its prompt of 10"),
        ({"images": [[[280]], [], []]}, "images[0] must hold [height, width] pairs (got [280])"),
    ],
)
def test_what_is_wrong_is_named(play: Play, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(TraceError) as caught:
        play(**changes)
    assert str(caught.value).endswith(f"run.json.gz: {what}")


def test_a_file_that_is_no_gzip_is_named(build: Build, put: Callable[[str, str], str], tmp_path: Any) -> None:
    (tmp_path / "run.json.gz").write_bytes(b"{}")
    with pytest.raises(TraceError, match=r"run\.json\.gz: cannot be read: Not a gzipped file"):
        build({"kind": "vllm_bench", "path": "run.json.gz"})
