"""The command `simllm validate`: tables on stdout, notes on stderr, files whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from simllm.cli import app
from simllm.errors import SimllmError

from .handmade import write_bench, write_steps

STEPS = ["2000,12000,0,0,100:100", "2500,20000,1,101,", "12500,30000,1,102,"]


def validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], catch_exceptions=False)


def test_the_errors_are_printed_and_written_as_json(tmp_path: Path) -> None:
    done = validate("--bench", write_bench(tmp_path), "--json", tmp_path / "errors.json")
    assert done.exit_code == 0
    assert "simulated / measured - 1" in done.stdout
    told = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))
    assert set(told) == {"runs", "summary"}
    errors = told["runs"][0]["errors"]
    assert {"ttft", "tpot", "itl", "e2el", "output_throughput", "request_throughput"} == set(errors)
    assert isinstance(errors["ttft"]["mean"], float)


def test_results_and_records_may_follow_as_a_shell_expands_them(tmp_path: Path) -> None:
    runs = [write_bench(tmp_path, name) for name in ("a.json", "b.json")]
    records = [write_steps(tmp_path, STEPS, name) for name in ("a.steps.csv", "b.steps.csv")]
    done = validate("--bench", runs[0], runs[1], *records, "--json", tmp_path / "errors.json")
    assert done.exit_code == 0
    told = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))
    assert [Path(run["file"]).name for run in told["runs"]] == ["a.json", "b.json"]
    assert all(run["step_times"]["all"]["num_steps"] == 2 for run in told["runs"])


def test_a_plain_file_takes_its_settings_from_options(tmp_path: Path) -> None:
    plain = write_bench(tmp_path, engine=None)
    options = ("--model", "llama-3.1-8b", "--tp", "2", "--num-gpu-blocks", "500", "--profile", "h200-sxm")
    done = validate("--bench", plain, *options)
    assert done.exit_code == 0
    assert "note: " in done.stderr
    assert "no `engine` block" in done.stderr


def test_plots_are_written_into_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    done = validate("--bench", write_bench(tmp_path), "-o", tmp_path / "plots")
    assert done.exit_code == 0
    assert [path.suffix for path in (tmp_path / "plots").iterdir()] == [".html"]


def test_each_result_needs_its_own_record(tmp_path: Path) -> None:
    with pytest.raises(SimllmError, match=r"one file for each --bench \(1\), got 2"):
        validate("--bench", write_bench(tmp_path), "--steps", "a.csv", "--steps", "b.csv")


def test_the_scheduler_is_checked_with_recorded_times(tmp_path: Path) -> None:
    lone = {"input_lens": [100], "output_lens": [3], "start_times": [0.0], "ttfts": [0.1], "latencies": [0.3]}
    bench = write_bench(tmp_path, **lone, cached_tokens=None, itls=None)
    done = validate("--step-times", "recorded", "--bench", bench, "--steps", write_steps(tmp_path, STEPS))
    assert "arrivals as modelled: 3 of 3 steps followed exactly" in done.stdout
    with pytest.raises(SimllmError, match="give the engine's steps with --steps"):
        validate("--step-times", "recorded", "--bench", bench)
