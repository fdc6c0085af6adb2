"""One scenario under several schedulers: the same requests, one table, one plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simllm.cli import app
from simllm.errors import ScenarioError
from simllm.sim.policy.scheduler import scheduler_names, scheduler_settings
from simllm.sim.scenario import parse_scenario
from simllm.sim.study.compare import compare, comparison_frame, settings_of

SMALL = ("workload.num_requests=40",)
RUN = ["compare", "01-first-run", "--set", SMALL[0]]


def test_each_scheduler_serves_the_very_same_requests() -> None:
    runs = compare("01-first-run", ["vllm_v1", "sglang"], overrides=SMALL)
    totals = {(run.summary["total_input_tokens"], run.summary["total_output_tokens"]) for run in runs}
    assert [run.name for run in runs] == ["vllm_v1", "sglang"]
    assert len(totals) == 1
    # A prompt of SGLang's stalls decodes, which vLLM's shares its steps with.
    assert runs[0].summary["p99_itl_ms"] != runs[1].summary["p99_itl_ms"]


def test_a_comparison_agrees_with_runs_of_their_own() -> None:
    (run,) = compare("01-first-run", ["vllm_v1"], overrides=SMALL)
    frame = comparison_frame([run])
    assert frame.loc[0, "output_throughput"] == run.summary["output_throughput"]
    assert frame.loc[0, "mean_ttft_ms"] == pytest.approx(run.latencies_ms["ttft"].mean())


@pytest.mark.parametrize("name", scheduler_names())
def test_every_name_stands_for_settings_that_a_scenario_takes(name: str) -> None:
    settings = scheduler_settings(name)
    workload = {
        "kind": "synthetic",
        "num_requests": 1,
        "arrivals": {"kind": "burst"},
        "prompt_tokens": {"kind": "fixed", "tokens": 10},
        "output_tokens": {"kind": "fixed", "tokens": 10},
    }
    pool = {"model": "llama-3.1-8b", "device": "h100-sxm", "scheduler": settings}
    assert settings is not None
    assert parse_scenario({"workload": workload, "pools": [pool]}).pools[0].scheduler.kind == settings["kind"]


def test_settings_stand_behind_colons() -> None:
    assert settings_of("sglang:schedule_policy=lpm:chunked_prefill_size=-1") == {
        "kind": "sglang",
        "schedule_policy": "lpm",
        "chunked_prefill_size": -1,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sglnag", "is no scheduler; there are .* did you mean 'sglang'"),
        ("sglang:schedule_policy", "must be name:field=value"),
        ("sglang:schedule_polcy=lpm", "unknown field.*did you mean 'schedule_policy'"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest_choice(name: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        compare("01-first-run", ["vllm_v1", name], overrides=SMALL)
    assert "\n" not in str(caught.value)


def test_the_command_prints_a_table_and_writes_table_plot_and_summaries(tmp_path: Path) -> None:
    out, told = tmp_path / "out", tmp_path / "told.json"
    result = CliRunner().invoke(
        app, [*RUN, "--schedulers", "vllm_v1,sglang", "-o", str(out), "--json", str(told)]
    )
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in ("vllm_v1", "sglang", "TTFT", "preemptions"))
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "comparison.html"]
    assert list(json.loads(told.read_text())) == ["vllm_v1", "sglang"]
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("sglang", "TPOT [ms]", "share of requests"))
