"""Conversations: who waits for whom, what prompts hold, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simllm.sim.request import output_content_id
from simllm.sim.run import simulate
from simllm.sim.scenario import parse_scenario
from simllm.sim.workload import Demand, WorkloadSpec, build_demand, write_demand

Build = Callable[..., Demand]


def fixed(tokens: int) -> dict[str, Any]:
    return {"kind": "fixed", "tokens": tokens}


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "conversation",
        "num_sessions": 1,
        "arrivals": {"kind": "constant", "request_rate": 1},
        "turns": {"mean_turns": 1e9, "max_turns": 3},
        "think_time": {"kind": "fixed", "delay_s": 7},
        "prompt_tokens": fixed(10),
        "output_tokens": fixed(5),
        **changes,
    }


def sizes(demand: Demand, row: int) -> list[int]:
    runs = demand.request(row).content
    assert runs is not None
    return [run.num_tokens for run in runs]


def test_a_turn_waits_for_the_answer_before_it_and_goes_on_from_it(build: Build) -> None:
    demand = build(fields())
    assert demand.prompt_tokens.tolist() == [10, 25, 40]
    assert list(demand.parents) == [(), (0,), (1,)]
    assert demand.delay_s.tolist() == [0, 7, 7]
    assert demand.turn.tolist() == [0, 1, 2]
    first, second = demand.request(0).content, demand.request(1).content
    assert second[:1] == first
    assert second[1] == (output_content_id(0), 5)


def test_dropped_reasoning_ends_the_known_prefix_where_it_began(build: Build) -> None:
    demand = build(fields(reasoning={"tokens": fixed(100)}))
    assert demand.output_tokens.tolist() == [105, 105, 105]
    assert demand.prompt_tokens.tolist() == [10, 25, 40]
    second, third = demand.request(1).content, demand.request(2).content
    assert second[0] == demand.request(0).content[0]
    assert second[1].content_id >= 0, "the answer without its reasoning is no beginning of the answer"
    assert third[:3] == second, "from then on the prompts share it"


def test_kept_reasoning_stays_in_the_prompts(build: Build) -> None:
    demand = build(fields(reasoning={"tokens": fixed(100)}, keeps_reasoning=True))
    assert demand.prompt_tokens.tolist() == [10, 125, 240]
    assert demand.request(1).content[1] == (output_content_id(0), 105)


TOOLS = {
    "mean_calls": 1e9,
    "max_calls": 1,
    "call_tokens": fixed(2),
    "result_tokens": fixed(30),
    "pause": {"kind": "fixed", "delay_s": 3},
}


def test_a_tool_call_is_a_request_a_pause_and_a_result(build: Build) -> None:
    demand = build(fields(turns={"mean_turns": 1}, tools=TOOLS))
    assert demand.output_tokens.tolist() == [2, 5]
    assert demand.prompt_tokens.tolist() == [10, 42]
    assert demand.delay_s.tolist() == [0, 3]
    assert demand.turn.tolist() == [0, 0]


def test_dropped_kv_leaves_only_the_system_prompt_known(build: Build) -> None:
    system = {"num_prefixes": 1, "prefix_tokens": fixed(50)}
    demand = build(fields(turns={"mean_turns": 1}, tools={**TOOLS, "kv": "drop"}, system_prompt=system))
    call, answer = demand.request(0).content, demand.request(1).content
    assert sizes(demand, 1) == [50, 42]
    assert answer[0] == call[0]
    assert answer[1].content_id not in {run.content_id for run in call}


def test_agents_fork_and_join(build: Build) -> None:
    agents = {"num_branches": 2, "depth": 2, "task_tokens": fixed(4)}
    demand = build(fields(turns={"mean_turns": 1}, agents=agents))
    # 0 plan; 1, 2 and 3, 4 the branches; 5 the join of 2 and 4.
    assert list(demand.parents) == [(), (0,), (1,), (0,), (3,), (2, 4)]
    # Plan 10; branch 10 + 5 + 4, then + 5 + 4; join 10 + 5 + two answers of 5.
    assert demand.prompt_tokens.tolist() == [10, 19, 28, 19, 28, 25]


def test_documents_and_system_prompts_are_shared_between_sessions(build: Build) -> None:
    demand = build(
        fields(
            num_sessions=30,
            turns={"mean_turns": 1},
            system_prompt={"num_prefixes": 1, "prefix_tokens": fixed(50)},
            documents={"num_documents": 2, "document_tokens": fixed(200), "num_retrieved": 2},
        )
    )
    contents = [request.content for request in demand.requests()]
    assert {run.content_id for runs in contents for run in runs[:3]} == {0, 1, 2}
    assert len({runs[3].content_id for runs in contents}) == 30
    assert set(demand.prompt_tokens.tolist()) == {50 + 2 * 200 + 10}


def test_a_session_ends_before_its_prompt_is_too_long(build: Build) -> None:
    assert build(fields(max_prompt_tokens=39)).prompt_tokens.tolist() == [10, 25]


def test_a_user_of_a_closed_loop_has_one_session_after_another(build: Build) -> None:
    arrivals = {"kind": "closed_loop", "num_clients": 2}
    demand = build(fields(num_sessions=4, turns={"mean_turns": 1}, arrivals=arrivals))
    assert demand.num_clients is None
    assert list(demand.parents) == [(), (), (0,), (1,)]


def test_tools_and_agents_exclude_each_other() -> None:
    agents = {"num_branches": 2, "task_tokens": fixed(4)}
    with pytest.raises(ValidationError, match="give either tools or agents"):
        TypeAdapter(WorkloadSpec).validate_python(fields(tools=TOOLS, agents=agents))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99),
    reasoning=st.sampled_from([None, {"tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 9}}]),
    keeps=st.booleans(),
    tools=st.sampled_from([None, {**TOOLS, "mean_calls": 1, "max_calls": 5}, {**TOOLS, "kv": "drop"}]),
)
def test_every_prompt_is_covered_by_its_content_and_everyone_is_sent(
    seed: int, reasoning: Any, keeps: bool, tools: Any
) -> None:
    changes = {"reasoning": reasoning, "keeps_reasoning": keeps, "tools": tools}
    data = fields(num_sessions=5, turns={"mean_turns": 3}, **changes)
    demand = build_demand(TypeAdapter(WorkloadSpec).validate_python(data), seed=seed, base_dir=Path())
    for request in demand.requests():
        assert sum(run.num_tokens for run in request.content) == request.prompt_tokens
        assert request.reasoning_tokens < request.output_tokens
    assert demand.parents.problem() is None
    assert (demand.parents.counts() == 0).sum() == 5, "only the first request of a session waits for nobody"


def test_the_exported_workload_is_the_same_again(build: Build, tmp_path: Path) -> None:
    demand = build(
        fields(num_sessions=20, turns={"mean_turns": 3}, tools=TOOLS, reasoning={"tokens": fixed(9)})
    )
    write_demand(demand, tmp_path / "w.jsonl")
    again = build({"kind": "table", "path": "w.jsonl"})
    write_demand(again, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "w.jsonl").read_bytes()
    assert list(again.parents) == list(demand.parents)
    np.testing.assert_array_equal(again.delay_s, demand.delay_s)


def test_the_exported_workload_gives_the_same_run_byte_by_byte(tmp_path: Path) -> None:
    workload = fields(num_sessions=12, turns={"mean_turns": 3}, tools=TOOLS, reasoning={"tokens": fixed(9)})
    pools = [{"model": "qwen2.5-7b", "device": "h200-sxm", "kv": {"enable_prefix_caching": True}}]
    first = parse_scenario({"workload": workload, "pools": pools})
    demand = build_demand(first.workload, seed=first.seed, base_dir=tmp_path)
    write_demand(demand, tmp_path / "w.jsonl")
    again = parse_scenario({"workload": {"kind": "table", "path": "w.jsonl"}, "pools": pools})
    for scenario, name in ((first, "one"), (again, "two")):
        simulate(scenario, base_dir=tmp_path).save(tmp_path / name)
    for file in ("requests.csv", "steps.parquet", "kv.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
