"""The shipped scenarios: each asks a question, stays short, runs, and loses no request."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simllm.cli import app
from simllm.sim.run import simulate
from simllm.sim.scenario import SHIPPED_SCENARIOS, load_scenario
from simllm.sim.workload.paths import FOLDER_VARIABLES

SCENARIOS = sorted(SHIPPED_SCENARIOS.glob("*.yaml"))
SCHEMA_LINE = "# yaml-language-server: $schema=scenario.schema.json"

each_scenario = pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def _no_public_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in FOLDER_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_the_scenarios_are_numbered_from_01() -> None:
    numbers = [int(path.stem.split("-")[0]) for path in SCENARIOS]
    assert numbers == list(range(1, len(SCENARIOS) + 1))
    assert len(SCENARIOS) >= 8


@each_scenario
def test_a_scenario_is_short_and_begins_with_the_schema_and_a_question(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40
    assert lines[0] == SCHEMA_LINE
    assert re.fullmatch(r"# [A-Z].*\?", lines[1])
    assert load_scenario(path)[0].name == path.stem.split("-", 1)[1]


@each_scenario
def test_a_scenario_runs_and_every_request_is_completed_or_rejected(path: Path) -> None:
    result = simulate(path)
    summary = result.summary()
    assert summary["completed"] + summary["rejected"] == len(result.requests)
    assert summary["unfinished"] == 0
    assert summary["completed"] > 0.99 * len(result.requests), "a tutorial serves nearly all it asks for"
    has_trace = getattr(load_scenario(path)[0].workload, "fallback", None) is not None
    assert has_trace == any("fallback" in note for note in summary["notes"])


@each_scenario
def test_the_commands_that_a_scenario_proposes_are_valid(path: Path) -> None:
    comments = " ".join(re.findall(r"^# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    for command in re.findall(r"simllm run [\w-]+(?: --set \S+=\S+)+", comments):
        _, _, name, *options = shlex.split(command)
        assert name == path.stem
        changed, _ = load_scenario(name, options[1::2])
        assert changed != load_scenario(name)[0], "the change changes something"


def test_the_schema_beside_the_scenarios_is_what_simllm_schema_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"]).stdout
    kept = (SHIPPED_SCENARIOS / "scenario.schema.json").read_text(encoding="utf-8")
    assert json.loads(kept) == json.loads(printed), "run `make generated`"
