"""The loaders on the public traces and measured runs, where they are at hand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simllm.sim.workload import Demand

Build = Callable[..., Demand]

needs_traces = pytest.mark.skipif(
    not os.environ.get("SIMLLM_TRACES"), reason="SIMLLM_TRACES names no folder of public traces"
)
needs_measured = pytest.mark.skipif(
    not os.environ.get("SIMLLM_MEASURED"), reason="SIMLLM_MEASURED names no folder of measured runs"
)


@needs_traces
def test_the_azure_conversation_hour_has_its_published_size(build: Build) -> None:
    demand = build({"kind": "azure", "path": "${SIMLLM_TRACES}/azure/AzureLLMInferenceTrace_conv.csv"})
    assert len(demand) == 19_366
    assert demand.output_tokens.sum() == 4_088_665
    # 18:15:46.6805900 to 19:14:08.4025270.
    assert demand.arrived_at[-1] == pytest.approx(3501.721937, abs=1e-9)
    assert demand.notes == ()


@needs_traces
def test_the_azure_conversation_hour_is_read_in_an_instant(build: Build) -> None:
    fields = {"kind": "azure", "path": "${SIMLLM_TRACES}/azure/AzureLLMInferenceTrace_conv.csv"}
    walls_s = []
    for _ in range(5):
        started = time.perf_counter()
        build(fields)
        walls_s.append(time.perf_counter() - started)
    assert min(walls_s) < 0.06


@needs_traces
def test_the_azure_code_hour_has_its_published_size(build: Build) -> None:
    demand = build({"kind": "azure", "path": "${SIMLLM_TRACES}/azure/AzureLLMInferenceTrace_code.csv"})
    assert len(demand) == 8_819


@needs_traces
def test_the_mooncake_conversations_have_their_published_means(build: Build) -> None:
    demand = build({"kind": "mooncake", "path": "${SIMLLM_TRACES}/mooncake/conversation_trace.jsonl"})
    assert len(demand) == 12_031
    assert round(demand.prompt_tokens.mean()) == 12_035
    assert round(demand.output_tokens.mean()) == 343
    first, second = demand.contents[:2]
    assert first[0] == second[0] and first[1] != second[1]


@needs_traces
def test_an_equal_mooncake_block_is_equally_long_everywhere(build: Build) -> None:
    demand = build({"kind": "mooncake", "path": "${SIMLLM_TRACES}/mooncake/synthetic_trace.jsonl"})
    lengths: dict[int, int] = {}
    for content in demand.contents or ():
        for run in content or ():
            assert lengths.setdefault(run.content_id, run.num_tokens) == run.num_tokens


@needs_measured
def test_measured_runs_are_replayed_as_they_were_recorded(build: Build) -> None:
    run = "${SIMLLM_MEASURED}/h200-vllm/llama-3.1-8b-tp1"
    poisson = build({"kind": "vllm_bench", "path": f"{run}/poisson-10.json.gz"})
    assert (len(poisson), poisson.num_clients) == (400, None)
    assert (poisson.prompt_tokens.sum(), poisson.output_tokens.sum()) == (371_046, 104_009)
    assert poisson.arrived_at[0] == 0.098630679
    closed = build({"kind": "vllm_bench", "path": f"{run}/closed-16.json.gz"})
    assert (len(closed), closed.num_clients) == (64, 16)
    assert closed.arrived_at[15] == closed.arrived_at[63] == 0.003374166


@needs_measured
def test_image_tokens_and_text_make_up_the_measured_prompts(build: Build) -> None:
    path = "${SIMLLM_MEASURED}/h200-vllm/qwen2.5-vl-7b-tp1/closed-16.json.gz"
    demand = build({"kind": "vllm_bench", "path": path})
    assert demand.image_tokens is not None
    # The first request: 258 text tokens, one image of 1204 x 308 pixels = 43 x 11 squares, two markers.
    assert demand.image_tokens[0] == 473
    assert demand.prompt_tokens[0] == 258 + 473 + 2
    assert (demand.image_tokens < demand.prompt_tokens).all()


@needs_measured
def test_every_measured_run_can_be_replayed(build: Build) -> None:
    folder = Path(os.environ["SIMLLM_MEASURED"])
    runs = sorted(folder.rglob("*.json.gz"))
    assert runs
    for run in runs:
        demand = build({"kind": "vllm_bench", "path": f"${{SIMLLM_MEASURED}}/{run.relative_to(folder)}"})
        assert np.isfinite(demand.arrived_at).all() and not demand.notes
