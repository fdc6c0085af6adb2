"""The first token that is not reasoning: against the step ends, and where these don't tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simllm.sim.outcome.results import Result
from simllm.sim.run import simulate
from simllm.sim.scenario import parse_scenario
from simllm.sim.world.recorder import Status

from .handmade import make_demand, make_meta, make_recorder

SCENARIO = {
    "workload": {
        "kind": "synthetic",
        "num_requests": 60,
        "arrivals": {"kind": "poisson", "request_rate": 4},
        "prompt_tokens": {"kind": "uniform", "min_tokens": 5, "max_tokens": 900},
        "output_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 90},
        "reasoning": {"tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 200}, "share": 0.7},
    },
    "pools": [{"model": "qwen2.5-7b", "device": "h200-sxm", "replicas": 2}],
}


def test_the_first_output_comes_as_many_gaps_after_the_first_token_as_it_reasoned() -> None:
    result = simulate(parse_scenario(SCENARIO))
    requests = result.requests
    assert requests["reasoning_tokens"].nunique() > 10
    for row in requests.itertuples():
        expected = row.first_token_at + result.itls(row.request_id)[: row.reasoning_tokens].sum()
        assert row.first_output_at == pytest.approx(expected, abs=1e-7)


def test_tokens_by_kind_add_up() -> None:
    summary = simulate(parse_scenario(SCENARIO)).summary()
    total = summary["total_reasoning_tokens"] + summary["total_answer_tokens"]
    assert total == summary["total_output_tokens"]
    assert summary["reasoning_throughput"] + summary["answer_throughput"] == pytest.approx(
        summary["output_throughput"]
    )


def test_without_step_rows_tokens_are_evenly_spaced() -> None:
    demand = replace(make_demand(), reasoning_tokens=np.array([0, 0, 2, 0]))
    requests = Result(make_recorder(record_steps=False), demand, make_meta()).requests
    # r2: five tokens from 1.5 to 2.02, the third one half way.
    assert requests["first_output_at"][2] == pytest.approx(1.76)


def test_an_answer_cut_within_its_reasoning_has_no_output() -> None:
    demand = replace(make_demand(), reasoning_tokens=np.array([0, 0, 7, 0]))
    result = Result(make_recorder(), demand, make_meta())
    assert np.isnan(result.requests["first_output_at"][2])
    assert result.summary()["total_reasoning_tokens"] == 5


def test_turns_are_timed_from_their_first_request_to_their_last_answer() -> None:
    # r0 and r1 are one turn: 0.0 to 0.8. r2 is the next one: 1.0 to 2.02. r3 was rejected: no time.
    sessions = {"session_id": np.array([4, 4, 4, 5]), "turn": np.array([0, 0, 1, 0])}
    result = Result(make_recorder(), replace(make_demand(), **sessions), make_meta())
    found = result.summary()["sessions"]
    assert found["num_sessions"] == 2
    assert found["mean_turn_ms"] == pytest.approx((800 + 1020) / 2)
    lines = [(line["turn"], line["completed"], line["cached_share"]) for line in found["by_turn"]]
    assert lines == [(0, 2, 0.0), (1, 1, 16 / 64)]
    assert (
        result.requests["status"].tolist().count("rejected")
        == 1
        == [*make_recorder().status].count(Status.REJECTED)
    )


def test_without_sessions_there_is_nothing_to_say_of_turns() -> None:
    assert Result(make_recorder(), make_demand(), make_meta()).summary()["sessions"] is None
