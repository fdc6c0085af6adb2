"""A user's own policy: it runs where it is allowed, from the file that was pinned, else it is refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import yaml

import simllm
from simllm.errors import ScenarioError
from simllm.sim.scenario import load_scenario, parse_scenario

ROOT = Path(simllm.__file__).parent
TUTORIAL = (ROOT / "docs" / "own-policy.md").read_text(encoding="utf-8")
POLICY = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)[0]
POOLS = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)[0])
WORKLOAD = {
    "kind": "synthetic",
    "num_requests": 60,
    "arrivals": {"kind": "poisson", "request_rate": 20},
    "prompt_tokens": {"kind": "uniform", "min_tokens": 50, "max_tokens": 1500},
    "output_tokens": {"kind": "uniform", "min_tokens": 1, "max_tokens": 80},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_policy.py").write_text(POLICY, encoding="utf-8")
    scenario = {"workload": WORKLOAD, **POOLS}
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump(scenario), encoding="utf-8")
    return tmp_path


def test_the_tutorials_policy_serves_every_request(folder: Path) -> None:
    result = simllm.simulate(folder / "scenario.yaml", allow_python=True)
    assert (result.requests["status"] == "finished").all()
    assert result.summary()["completed"] == 60


def test_without_permission_no_code_runs(folder: Path) -> None:
    (folder / "my_policy.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"\$\.pools\[0\]\.scheduler\.path: .*--allow-python"):
        simllm.simulate(folder / "scenario.yaml")


def test_the_lock_pins_the_file_and_gives_the_same_rows(folder: Path, tmp_path: Path) -> None:
    result = simllm.simulate(folder / "scenario.yaml", allow_python=True)
    lock = yaml.safe_load(result.meta.lock_yaml)["pools"][0]["scheduler"]
    assert lock["sha256"] == hashlib.sha256(POLICY.encode()).hexdigest()
    assert lock["path"] == f"{(folder / 'my_policy.py').resolve()}:MyPolicy"
    again = tmp_path / "again.lock.yaml"
    again.write_text(result.meta.lock_yaml, encoding="utf-8")
    assert simllm.simulate(again, allow_python=True).requests.equals(result.requests)


def test_a_changed_file_is_refused_with_its_digest(folder: Path, tmp_path: Path) -> None:
    lock = simllm.simulate(folder / "scenario.yaml", allow_python=True).meta.lock_yaml
    (folder / "my_policy.py").write_text(POLICY + "\n", encoding="utf-8")
    again = tmp_path / "again.lock.yaml"
    again.write_text(lock, encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"scheduler\.sha256: my_policy\.py has changed"):
        simllm.simulate(again, allow_python=True)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (POLICY, "my_policy.py:MyPolcy", "has no such class .*did you mean 'MyPolicy'"),
        ("class Mine: pass", "my_policy.py:Mine", "lacks add, schedule, .*derive it from SchedulerCore"),
        ("def broken(:", "my_policy.py:Mine", "cannot be run: SyntaxError"),
        ("import no_such_module", "my_policy.py:Mine", "cannot be run: ModuleNotFoundError"),
        (POLICY, "other.py:MyPolicy", "No such file"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(folder: Path, text: str, path: str, message: str) -> None:
    (folder / "my_policy.py").write_text(text, encoding="utf-8")
    scenario, base = load_scenario(folder / "scenario.yaml", [f"pools.0.scheduler.path={path}"])
    with pytest.raises(ScenarioError, match=message) as caught:
        simllm.simulate(scenario, base_dir=base, allow_python=True)
    assert "\n" not in str(caught.value)


def test_a_path_without_a_class_is_refused() -> None:
    data = {"workload": WORKLOAD, **POOLS}
    data["pools"][0]["scheduler"] = {"kind": "python", "path": "my_policy.py"}
    with pytest.raises(ScenarioError, match=r"\$\.pools\[0\]\.scheduler\.path"):
        parse_scenario(data)
