from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simllm.errors import TraceError
from simllm.sim.request import ContentRun
from simllm.sim.workload import Demand

Build = Callable[..., Demand]
PutLines = Callable[..., str]


def row(**changes: Any) -> dict[str, Any]:
    fields = {"timestamp": 1500, "input_length": 1030, "output_length": 7, "hash_ids": [46, 47, 48]}
    return {**fields, **changes}


def test_milliseconds_become_seconds_from_the_first_request(build: Build, put_lines: PutLines) -> None:
    path = put_lines("m.jsonl", row(), row(timestamp=4536))
    demand = build({"kind": "mooncake", "path": path})
    assert demand.arrived_at.tolist() == [0.0, 3.036]
    assert demand.output_tokens.tolist() == [7, 7]


def test_hash_ids_become_runs_of_512_tokens_and_the_rest(build: Build, put_lines: PutLines) -> None:
    # Prompts part after 46, so that 47 begins a run; 48 belongs to it.
    path = put_lines("m.jsonl", row(), row(input_length=600, hash_ids=[46, 49]))
    first, second = build({"kind": "mooncake", "path": path}).contents or ()
    assert first == (ContentRun(46, 512), ContentRun(47, 512 + 6))
    assert second == (ContentRun(46, 512), ContentRun(49, 88))


def test_blocks_may_have_another_size(build: Build, put_lines: PutLines) -> None:
    path = put_lines("m.jsonl", row(input_length=20, hash_ids=[1, 2]), row(input_length=9, hash_ids=[2]))
    first, second = build({"kind": "mooncake", "path": path, "block_tokens": 16}).contents or ()
    assert first == (ContentRun(1, 16), ContentRun(2, 4))
    assert second == (ContentRun(2, 9),)


def test_unsorted_rows_take_their_contents_along(build: Build, put_lines: PutLines) -> None:
    path = put_lines("m.jsonl", row(), row(timestamp=0, input_length=9, hash_ids=[5]))
    demand = build({"kind": "mooncake", "path": path})
    assert demand.prompt_tokens.tolist() == [9, 1030]
    assert (demand.contents or ())[0] == (ContentRun(5, 9),)
    assert len(demand.notes) == 1


def test_only_the_first_rows_are_played_if_so_asked(build: Build, put_lines: PutLines) -> None:
    path = put_lines("m.jsonl", row(), row(), row(input_length=-1))
    assert len(build({"kind": "mooncake", "path": path, "num_requests": 2})) == 2


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (row(input_length=0), "input_length must be a whole number >= 1 (got 0)"),
        (row(input_length="12"), 'input_length must be a whole number >= 1 (got "12")'),
        (row(output_length=-3), "output_length must be a whole number >= 1 (got -3)"),
        (row(output_length=2.5), "output_length must be a whole number >= 1 (got 2.5)"),
        (row(timestamp=-1), "timestamp must be a number >= 0 (got -1)"),
        (row(timestamp=None), "timestamp must be a number >= 0 (got null)"),
        (row(timestamp=float("inf")), "timestamp must be a number >= 0 (got Infinity)"),
        (row(hash_ids=[1, 2]), "2 hash_ids for 1030 tokens in blocks of 512, expected 3"),
        (row(hash_ids=[1, 2, "c"]), "hash_ids must be whole numbers >= 0 (got 'c')"),
        (row(hash_ids=7), "hash_ids must be a list (got int)"),
        ({"timestamp": 0, "input_lengths": 4}, "has no 'input_length'; did you mean 'input_lengths'?"),
        ([1, 2], "expected a JSON object (got [1, 2])"),
    ],
)
def test_the_first_bad_line_is_named(build: Build, put_lines: PutLines, bad: object, what: str) -> None:
    path = put_lines("m.jsonl", row(), bad)
    with pytest.raises(TraceError) as caught:
        build({"kind": "mooncake", "path": path})
    assert str(caught.value).endswith(f"m.jsonl:2: {what}")


def test_a_line_that_is_no_json_is_named(build: Build, put: Callable[[str, str], str]) -> None:
    with pytest.raises(TraceError, match=r"m\.jsonl:2: is no JSON: Expecting"):
        build({"kind": "mooncake", "path": put("m.jsonl", "\n{'timestamp': 0}\n")})


def test_an_empty_file_is_an_error(build: Build, put: Callable[[str, str], str]) -> None:
    with pytest.raises(TraceError, match=r"m\.jsonl: holds no requests"):
        build({"kind": "mooncake", "path": put("m.jsonl", "\n")})


def turns_of(build: Callable[..., Demand], put_lines: Callable[..., str], how: str) -> Demand:
    """Two conversations in blocks of 10 tokens that share their first block, and an unrelated retry."""
    rows = [
        (0, 20, 5, [1, 2]),
        (0, 20, 5, [1, 3]),
        (3000, 38, 5, [1, 2, 4, 5]),  # 20 + 5 fit: goes on from the first
        (3000, 22, 5, [1, 3, 6]),  # no room for the answer of the second
        (6000, 50, 5, [1, 2, 4, 7, 8]),  # whole blocks 1, 2, 4 of the third, 38 + 5 fit
    ]
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    path = put_lines("m.jsonl", *(dict(zip(names, row, strict=True)) for row in rows))
    return build({"kind": "mooncake", "path": path, "block_tokens": 10, "sessions": how})


def test_conversations_are_found_by_whole_blocks_with_room_for_the_answer(
    build: Callable[..., Demand], put_lines: Callable[..., str]
) -> None:
    demand = turns_of(build, put_lines, "label")
    assert demand.session_id.tolist() == [0, 1, 0, 2, 0]
    assert demand.turn.tolist() == [0, 0, 1, 0, 2]
    assert demand.parents is None


def test_turns_that_follow_wait_for_the_answer_before_them(
    build: Callable[..., Demand], put_lines: Callable[..., str]
) -> None:
    demand = turns_of(build, put_lines, "follow")
    assert list(demand.parents) == [(), (), (0,), (), (2,)]
    assert demand.arrived_at.tolist() == [0, 0, 3, 3, 6]
