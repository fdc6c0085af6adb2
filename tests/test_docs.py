"""The documents: what they show runs, what they promise is printed, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import harness
import numpy as np
import pytest
import yaml

import simllm
from simllm.sim.scenario import SHIPPED_SCENARIOS, Scenario, load_scenario, parse_scenario

ROOT = Path(simllm.__file__).parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scenario_reference_is_current() -> None:
    script = load_script("generate_reference")
    kept = script.REFERENCE.read_text(encoding="utf-8")
    assert kept == script.reference(Scenario.model_json_schema()), "run `make generated`"


def test_the_reference_names_every_part_of_the_schema_once() -> None:
    text = (ROOT / "docs" / "scenario-reference.md").read_text(encoding="utf-8")
    parts = {"Scenario", *Scenario.model_json_schema()["$defs"]}
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == sorted(parts)


def test_the_readme_shows_the_first_scenario_in_a_dozen_lines() -> None:
    (shown,) = blocks("README.md", "yaml")
    assert len(shown.splitlines()) <= 12
    assert parse_scenario(yaml.safe_load(shown)) == load_scenario("01-first-run")[0]


def test_the_readme_shows_what_its_scenario_prints() -> None:
    script = load_script("generate_readme")
    (shown,) = blocks("README.md", "text")
    now = script.printed((ROOT / "README.md").read_text(encoding="utf-8"))
    assert labels(shown) == labels(now), "run `make generated`"
    # Another processor's logarithm may round the last bit of a drawn length differently.
    np.testing.assert_allclose(figures(shown), figures(now), rtol=0.01, err_msg="run `make generated`")


def labels(block: str) -> list[str]:
    return [line[:40].strip("= -") for line in block.splitlines()]


def figures(block: str) -> list[float]:
    return [float(figure) for figure in re.findall(r" (\d+(?:\.\d+)?)$", block, re.MULTILINE)]


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert "ttft_ms" in capsys.readouterr().out


def test_the_readme_asks_the_questions_of_the_scenarios() -> None:
    rows = re.findall(r"^\| \[([\w-]+)\]\(.*?\) \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    asked = {
        p.stem: p.read_text().splitlines()[1].removeprefix("# ") for p in SHIPPED_SCENARIOS.glob("*.yaml")
    }
    assert dict(rows) == asked


def test_the_commands_of_the_readme_are_valid() -> None:
    shell = "\n".join(blocks("README.md", "sh"))
    commands = re.findall(r"simllm (?:run|workload) (\S+)(?: --set (\S+))?", shell)
    assert len(commands) == 4
    for name, override in commands:
        load_scenario(name, [override] if override else [])
    targets = re.findall(r"^make (\w+)", shell, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_engine_of_the_document_does_what_its_contract_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("docs/add-an-engine.md", "python")
    namespace: dict[str, Any] = {}
    exec(compile(code, "add-an-engine.md", "exec"), namespace)
    monkeypatch.setattr(harness, "make_scheduler", namespace["OneAtATimeScheduler"])
    # Steps last 10 ms. Request 0: a prefill and 4 decodes, 0 to 50 ms; request 1 comes meanwhile and takes
    # one step, 50 to 60 ms; request 2 takes 40 steps, 60 to 460 ms; request 3 is larger than 64 blocks of 4.
    demand = harness.make_demand([(0, 10, 5), (0.011, 1, 1), (0.022, 30, 40), (0.033, 200, 60)])
    for caches in (False, True):
        leaping, _ = harness.play(demand, caches=caches, checks_blocks=True)
        plain, _ = harness.play(demand, caches=caches, checks_blocks=True, leaps=False)
        np.testing.assert_allclose(list(leaping.finished_at), [0.05, 0.06, 0.46, np.nan], atol=1e-12)
        np.testing.assert_allclose(harness.request_rows(leaping), harness.request_rows(plain), atol=1e-12)
        np.testing.assert_allclose(harness.step_rows(leaping), harness.step_rows(plain), atol=1e-12)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), f"{document.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:sim|hwmodels|tests|scenarios|kernels|calibrate)/[\w./-]+)`", text)
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []
