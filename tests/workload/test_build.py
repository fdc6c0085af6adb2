from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from simllm.errors import ScenarioError, TraceError
from simllm.sim.workload import Demand, WorkloadSpec, build_demand, resolve_workload

Build = Callable[..., Demand]
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FALLBACK: dict[str, Any] = {
    "num_requests": 5,
    "arrivals": {"kind": "burst"},
    "prompt_tokens": {"kind": "fixed", "tokens": 8},
    "output_tokens": {"kind": "fixed", "tokens": 4},
}


def test_an_absent_trace_without_fallback_is_an_error(build: Build) -> None:
    with pytest.raises(TraceError, match=r"gone.csv: no such file"):
        build({"kind": "azure", "path": "gone.csv"})


def test_an_absent_trace_is_replaced_by_its_fallback_and_says_so(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMLLM_TRACES", raising=False)
    demand = build({"kind": "azure", "path": "${SIMLLM_TRACES}/a.csv", "fallback": FALLBACK})
    assert len(demand) == 5
    assert demand.notes == (
        "${SIMLLM_TRACES}/a.csv: the environment variable SIMLLM_TRACES is not set to its folder; "
        "its synthetic fallback is played instead",
    )


def test_a_present_trace_is_played_even_with_a_fallback(build: Build, put: Callable[[str, str], str]) -> None:
    path = put("a.csv", HEADER + "2023-11-16 18:15:46.6805900,374,44\n")
    demand = build({"kind": "azure", "path": path, "fallback": FALLBACK})
    assert (demand.prompt_tokens.tolist(), demand.notes) == ([374], ())


def test_a_malformed_trace_is_an_error_even_with_a_fallback(
    build: Build, put: Callable[[str, str], str]
) -> None:
    path = put("a.csv", HEADER + "yesterday,374,44\n")
    with pytest.raises(TraceError, match=r"a.csv:2: TIMESTAMP"):
        build({"kind": "azure", "path": path, "fallback": FALLBACK})


def test_a_rate_scale_plays_arrivals_faster_and_is_noted(build: Build, put_lines: Callable[..., str]) -> None:
    row = {"input_length": 5, "output_length": 1, "hash_ids": [1]}
    path = put_lines("m.jsonl", {"timestamp": 0, **row}, {"timestamp": 3000, **row})
    demand = build({"kind": "mooncake", "path": path, "rate_scale": 4})
    assert demand.arrived_at.tolist() == [0.0, 0.75]
    assert demand.notes == ("arrivals are played 4 times as fast as recorded",)


def test_a_closed_loop_cannot_be_played_faster(build: Build, put: Callable[[str, str], str]) -> None:
    head = '{"format":"simllm-workload","version":1,"num_requests":1,"num_clients":2,'
    columns = '"columns":["arrived_at","prompt_tokens","output_tokens"]}\n'
    path = put("w.jsonl", head + columns + '{"arrived_at":0,"prompt_tokens":1,"output_tokens":1}\n')
    with pytest.raises(ScenarioError, match=r"workload\.rate_scale: has no meaning in a closed loop"):
        build({"kind": "table", "path": path, "rate_scale": 2})


def test_a_resolved_workload_means_the_same_from_another_folder(
    put: Callable[[str, str], str], tmp_path: Path
) -> None:
    put("lengths.yaml", "prompt_tokens: {kind: histogram, values_tokens: [3, 5], weights: [1, 2]}")
    put("a.csv", HEADER)
    histogram = {"kind": "histogram", "path": "lengths.yaml", "column": "prompt_tokens"}
    fields = {"kind": "azure", "path": "a.csv", "fallback": {**FALLBACK, "prompt_tokens": histogram}}
    resolved = resolve_workload(TypeAdapter(WorkloadSpec).validate_python(fields), tmp_path)
    assert resolved.path == str(tmp_path.resolve() / "a.csv")
    assert resolved.fallback.prompt_tokens.values_tokens == (3, 5)
    again = resolve_workload(resolved, Path("/elsewhere"))
    assert again == resolved


def test_resolving_changes_no_row(put: Callable[[str, str], str], tmp_path: Path) -> None:
    put("lengths.yaml", "prompt_tokens: {kind: histogram, edges_tokens: [3, 5, 900]}")
    histogram = {"kind": "histogram", "path": "lengths.yaml", "column": "prompt_tokens"}
    fields = {**FALLBACK, "kind": "synthetic", "num_requests": 50, "prompt_tokens": histogram}
    spec = TypeAdapter(WorkloadSpec).validate_python(fields)
    resolved = resolve_workload(spec, tmp_path)
    first = build_demand(spec, seed=1, base_dir=tmp_path)
    second = build_demand(resolved, seed=1, base_dir=Path("/elsewhere"))
    assert first.prompt_tokens.tolist() == second.prompt_tokens.tolist()


def test_samples_and_beams_are_asked_for_in_every_row(build: Build) -> None:
    assert [request.num_samples for request in build({"kind": "synthetic", **FALLBACK}).requests()] == [1] * 5
    sampled = build({"kind": "synthetic", "num_samples": 3, **FALLBACK})
    assert [request.num_samples for request in sampled.requests()] == [3] * 5
    searched = build({"kind": "synthetic", "beam_width": 4, **FALLBACK})
    assert [(request.num_samples, request.beam_width) for request in searched.requests()] == [(1, 4)] * 5


def test_a_request_samples_or_searches_and_not_both(build: Build) -> None:
    with pytest.raises(ValidationError, match="give either num_samples or beam_width"):
        build({"kind": "synthetic", "num_samples": 2, "beam_width": 2, **FALLBACK})
