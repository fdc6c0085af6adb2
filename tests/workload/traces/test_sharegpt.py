from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simllm.errors import TraceError
from simllm.sim.request import ContentRun, output_content_id
from simllm.sim.workload import Demand

Build = Callable[..., Demand]
Talk = Callable[..., Demand]


@pytest.fixture
def talk(build: Build, put_lines: Callable[..., str]) -> Talk:
    """Plays conversations, each a list of (speaker, text or number of tokens)."""

    def played(*conversations: list[tuple[str, str | int]], **spec: Any) -> Demand:
        rows = [
            {"conversations": [_message(speaker, what) for speaker, what in conversation]}
            for conversation in conversations
        ]
        path = put_lines("talk.jsonl", *rows)
        return build({"kind": "sharegpt", "path": path, "arrivals": {"kind": "burst"}, **spec})

    return played


def _message(speaker: str, what: str | int) -> dict[str, object]:
    return {"from": speaker, ("num_tokens" if isinstance(what, int) else "value"): what}


def test_each_answer_is_a_request_whose_prompt_is_the_talk_so_far(talk: Talk) -> None:
    demand = talk([("human", 10), ("gpt", 5), ("human", 7), ("gpt", 3)])
    assert demand.prompt_tokens.tolist() == [10, 10 + 5 + 7]
    assert demand.output_tokens.tolist() == [5, 3]
    assert (demand.session_id.tolist(), demand.turn.tolist()) == ([0, 0], [0, 1])


def test_the_next_turn_continues_from_the_prompt_and_the_answer(talk: Talk) -> None:
    first, second = talk([("human", 10), ("gpt", 5), ("human", 7), ("gpt", 3)]).contents or ()
    assert first is not None and second is not None
    assert second[:2] == (*first, ContentRun(output_content_id(0), 5))
    assert second[2].num_tokens == 7


def test_turns_come_an_interval_apart_and_conversations_interleave(talk: Talk) -> None:
    two = [("human", 1), ("gpt", 1), ("human", 1), ("gpt", 1)]
    demand = talk(two, two, arrivals={"kind": "constant", "request_rate": 0.5}, turn_interval_s=5.0)
    # Conversations begin at 0 and 2 s.
    assert demand.arrived_at.tolist() == [0.0, 2.0, 5.0, 7.0]
    assert demand.session_id.tolist() == [0, 1, 0, 1]
    # Each second turn names the answer of its own first one, whose row moved from 2 to 1.
    answers = [(content or ())[1].content_id for content in (demand.contents or ())[2:]]
    assert answers == [output_content_id(0), output_content_id(1)]
    assert demand.notes == ()


def test_a_closed_loop_sends_one_conversation_after_another(talk: Talk) -> None:
    two = [("human", 1), ("gpt", 1), ("human", 1), ("gpt", 1)]
    demand = talk(two, two, arrivals={"kind": "closed_loop", "num_clients": 3})
    assert demand.num_clients == 3
    assert demand.session_id.tolist() == [0, 0, 1, 1]
    assert demand.arrived_at.tolist() == [0.0] * 4


def test_texts_count_their_characters_and_equal_ones_are_shared(talk: Talk) -> None:
    talks = [[("system", "Be brief."), ("human", text), ("gpt", "12345678")] for text in ("aaaa", "b")]
    demand = talk(*talks)
    # Four characters a token, rounded up: 9 -> 3, 4 -> 1, 1 -> 1, 8 -> 2.
    assert demand.prompt_tokens.tolist() == [4, 4]
    assert demand.output_tokens.tolist() == [2, 2]
    first, second = ((content or ()) for content in demand.contents or ())
    assert first[0] == second[0] and first[1] != second[1]
    assert demand.notes == ("lengths are texts at 4 characters per token",)


def test_another_number_of_characters_per_token_may_be_given(talk: Talk) -> None:
    assert talk([("user", "123456789"), ("assistant", "1")], chars_per_token=3).prompt_tokens.tolist() == [3]


def test_unanswered_and_unasked_messages_make_no_request(talk: Talk) -> None:
    demand = talk([("gpt", 9), ("human", 4), ("gpt", 5), ("gpt", 6), ("human", 7)], [("human", 1)])
    # An opening line and a second answer in a row are context only; the last question has no answer.
    assert demand.prompt_tokens.tolist() == [9 + 4]
    with pytest.raises(TraceError, match="holds no answered message"):
        talk([("human", ""), ("gpt", "x")])


def test_turns_and_requests_can_be_limited(talk: Talk) -> None:
    three = [("human", 1), ("gpt", 2)] * 3
    assert talk(three, three, max_turns=2).turn.tolist() == [0, 0, 1, 1]
    assert len(talk(three, three, num_requests=4)) == 4


def test_empty_conversations_do_not_use_up_arrivals(talk: Talk) -> None:
    demand = talk(
        [("human", 1)], [("human", 1), ("gpt", 1)], arrivals={"kind": "constant", "request_rate": 1}
    )
    assert (demand.session_id.tolist(), demand.arrived_at.tolist()) == ([0], [0.0])


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"items": []}, "has no 'conversations'"),
        ({"conversations": 3}, "conversations must be a list (got 3)"),
        ({"conversations": ["hi"]}, 'conversations[0] must be an object (got "hi")'),
        (
            {"conversations": [{"from": "asistant", "value": "x"}]},
            "conversations[0].from is no known speaker (got \"asistant\"); did you mean 'assistant'?",
        ),
        (
            {"conversations": [{"from": "gpt"}]},
            "conversations[0] must have a text, value, or a length, num_tokens",
        ),
        (
            {"conversations": [{"from": "gpt", "num_tokens": 0}]},
            "conversations[0].num_tokens must be a whole number >= 1 (got 0)",
        ),
    ],
)
def test_the_first_bad_line_is_named(
    build: Build, put_lines: Callable[..., str], row: dict[str, object], what: str
) -> None:
    path = put_lines("talk.jsonl", {"conversations": []}, row)
    with pytest.raises(TraceError) as caught:
        build({"kind": "sharegpt", "path": path, "arrivals": {"kind": "burst"}})
    assert str(caught.value).endswith(f"talk.jsonl:2: {what}")
