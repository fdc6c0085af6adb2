"""The command line: results on stdout, everything else on stderr, and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from sim.small import small, write

from simllm import __version__
from simllm.cli import main
from simllm.hot_modules import variant
from simllm.sim.outcome.files import RUN_FILES
from simllm.sim.scenario import Scenario


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["simllm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


def test_a_run_prints_its_block_on_stdout_and_the_rest_on_stderr(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("run", write(tmp_path))
    assert code == 0
    assert out.startswith("============ Serving Benchmark Result ============\n")
    assert "Successful requests:                     40" in out
    assert "KV" in err
    assert "Successful" not in err


def test_a_quiet_run_says_nothing_else(cli: Cli, tmp_path: Path) -> None:
    assert cli("run", write(tmp_path), "-q").err == ""


def test_a_run_writes_its_files(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path)
    code, out, _ = cli("run", path, "-q", "-o", "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(RUN_FILES)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["completed"] == 40
    assert (code, out) == cli("run", path, "-q")[:2], "the files change nothing on stdout"


def test_options_override_fields_and_the_seed(cli: Cli, tmp_path: Path) -> None:
    overrides = ("--set", "workload.num_requests=3", "--set", "pools.0.replicas=2", "--seed", "9")
    cli("run", write(tmp_path), "-q", "-o", "out", *overrides)
    locked = yaml.safe_load((tmp_path / "out" / "scenario.lock.yaml").read_text())
    assert (locked["workload"]["num_requests"], locked["pools"][0]["replicas"], locked["seed"]) == (3, 2, 9)


def test_a_lock_runs_to_the_same_bytes_in_another_process(cli: Cli, tmp_path: Path) -> None:
    shared = "workload.shared_prefix={num_prefixes: 3, prefix_tokens: {kind: fixed, tokens: 500}}"
    first = cli("run", write(tmp_path, shared, "pools.0.kv.num_gpu_blocks=201"), "-q", "-o", "one")
    command = [sys.executable, "-m", "simllm.cli", "run", "one/scenario.lock.yaml", "-q", "-o", "two"]
    # Another order of sets and hashes, should anything depend on it.
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (second.stdout, second.stderr) == (first.out, "")
    for name in RUN_FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_workload_is_written_and_played(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path)
    assert cli("workload", path, "-o", "trace.jsonl") == (0, "", "trace.jsonl: 40 requests\n")
    played = cli("run", path, "-q", "--set", "workload={kind: table, path: trace.jsonl}")
    assert played == cli("run", path, "-q")


def test_the_schema_is_the_scenario_s(cli: Cli) -> None:
    code, out, err = cli("schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == Scenario.model_json_schema()


def test_the_version_is_the_package_s_and_says_whether_it_is_compiled(cli: Cli) -> None:
    assert cli("--version") == (0, f"simllm {__version__} ({variant()})\n", "")


AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["sed=3"], ["$.sed: unknown field; did you mean 'seed'?"]),
        (
            ["pools.0.replicas=0", "workload.kind=azur"],
            ["$.workload.kind: must be one of ", "$.pools[0].replicas: must be greater than or equal to 1"],
        ),
        (["pools.0.model=lama-3.1-8b"], ["$.pools[0].model: lama-3.1-8b: no such model"]),
        (["pools.0.device=h101-sxm"], ["$.pools[0].device: h101-sxm: no such "]),
        (["pools.0.model=llama-3.1-70b"], ["llama-3.1-70b on h100-sxm does not fit: weights 131.4 + "]),
        (["workload={kind: azure, path: gone.csv}"], ["gone.csv: no such file"]),
        (["workload={kind: azure, path: azure.csv}"], ["azure.csv:3: "]),
        (["workload={kind: mooncake, path: mooncake.jsonl}"], ["mooncake.jsonl:1: "]),
        (["pools.7.name=x"], ["--set pools.7.name: '7' is not one of the 1 items"]),
    ],
)
def test_a_user_s_error_is_told_line_by_line_and_leaves_nothing_behind(
    overrides: list[str], lines: list[str], cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "azure.csv").write_text(f"{AZURE_HEADER}2023-11-16 18:15:46,374,44\nyesterday,374,44\n")
    (tmp_path / "mooncake.jsonl").write_text('{"timestamp": 0}\n')
    path = write(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = cli("run", path, "-o", "out", *(part for text in overrides for part in ("--set", text)))
    assert_refused(outcome, lines)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\nb: 2", "bad.yaml:2: is not valid YAML"),
        ("", "bad.yaml: must be a mapping"),
        (None, "bad.yaml: no such"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(text: str | None, line: str, cli: Cli, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    assert_refused(cli("run", "bad.yaml", "-o", "out"), [line])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_other_things_is_refused_before_the_run(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path)
    assert_refused(cli("run", path, "-o", tmp_path), [f"{tmp_path}: holds 'small.yaml'"])
    assert yaml.safe_load(path.read_text()) == small()


def test_a_workload_that_cannot_be_written_is_refused(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("workload", write(tmp_path), "-o", "no/such/folder.jsonl")
    assert_refused(outcome, ["no/such/folder.jsonl: cannot be written"])


def test_an_unknown_option_is_a_user_s_error(cli: Cli) -> None:
    code, out, err = cli("run", "01-first-run", "--sett", "x=1")
    assert (code, out) == (2, "")
    assert "--sett" in err


def assert_refused(outcome: Outcome, lines: list[str]) -> None:
    """Checks exit code 2, nothing on stdout, and on stderr these lines as they begin and no traceback."""
    assert (outcome.code, outcome.out) == (2, "")
    said = outcome.err.removeprefix("error: ").replace(f"{Path.cwd()}/", "").splitlines()
    assert outcome.err.startswith("error: ")
    assert len(said) == len(lines)
    assert all(line.startswith(begin) for line, begin in zip(said, lines, strict=True)), said
