"""The compiled twins of hot modules: the same results, and never taken for a source that has changed."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from wheels import PYPROJECT, ROOT, build, modules, wheel_in

from simllm.hot_modules import CompiledFinder, variant

HOT: list[str] = PYPROJECT["tool"]["simllm"]["hot-modules"]
PLATFORM = EXTENSION_SUFFIXES[0].split(".")[1]
ENGINE = "import simllm.sim.run, sys; print(sys.modules['simllm.sim.world.engine'].__file__)"

EXTENDED = """
from simllm.sim import run
from simllm.sim.policy import scheduler
from simllm.sim.policy.scheduler.vllm_v1 import VllmV1Scheduler
from simllm.sim.world import engine

class Counting(VllmV1Scheduler):
    num_asked = 0

    def schedule(self):
        Counting.num_asked += 1
        return super().schedule()

scheduler.VllmV1Scheduler = Counting
run.simulate("01-first-run")
print(Counting.num_asked, issubclass(Counting, VllmV1Scheduler) and not engine.__file__.endswith(".py"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds a wheel with compiled twins."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("there is no C compiler")
    return wheel_in(build(tmp_path_factory.mktemp("compiled"), is_pure=False))


@pytest.fixture
def site(wheel: Path, tmp_path: Path) -> Path:
    """Installs the wheel into a folder of its own."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    return tmp_path / "site"


def python(site: Path, *arguments: str | Path, is_pure: bool = False) -> str:
    """Returns what Python prints with the package of `site`."""
    environment = os.environ | {"PYTHONPATH": str(site), "SIMLLM_PURE_PYTHON": "1" if is_pure else ""}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_a_twin_of_each_hot_module_beside_its_source(wheel: Path) -> None:
    assert not wheel.name.endswith("-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    twins = ["simllm__mypyc", *(f"simllm.{source[:-3].replace('/', '.')}" for source in HOT)]
    folder = f"simllm/compiled/{PLATFORM}"
    assert {name for name in names if name.startswith("simllm/compiled/")} == {
        f"{folder}/SHA256SUMS",
        *(f"{folder}/{twin}{EXTENSION_SUFFIXES[0]}" for twin in twins),
    }
    assert {f"simllm/{source}" for source in HOT} <= names


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["03-prefix-cache", "04-long-reasoning", "05-closed-loop"])
def test_compiled_and_in_python_a_run_writes_the_same_bytes(site: Path, scenario: str) -> None:
    command = ("-m", "simllm.cli", "run", scenario, "--set", "workload.num_requests=80", "-o")
    printed = python(site, *command, site / "compiled")
    assert printed == python(site, *command, site / "pure", is_pure=True)
    files = sorted(file.name for file in (site / "compiled").iterdir())
    assert "steps.parquet" in files
    for name in files:
        assert (site / "compiled" / name).read_bytes() == (site / "pure" / name).read_bytes(), name


@pytest.mark.slow
def test_an_installation_runs_its_twins_and_says_so(site: Path) -> None:
    assert "(compiled)" in python(site, "-m", "simllm.cli", "--version")
    assert Path(python(site, "-c", ENGINE).strip()).parent.name == PLATFORM
    assert "(pure Python: SIMLLM_PURE_PYTHON is set)" in python(
        site, "-m", "simllm.cli", "--version", is_pure=True
    )
    assert python(site, "-c", ENGINE, is_pure=True).strip().endswith("engine.py")


@pytest.mark.slow
def test_once_a_source_has_changed_all_run_in_python(site: Path) -> None:
    with (site / "simllm/sim/world/leap.py").open("a", encoding="utf-8") as source:
        source.write("EDITED = True\n")
    assert python(site, "-c", "from simllm.sim.world import leap; print(leap.EDITED)") == "True\n"
    assert python(site, "-c", ENGINE).strip().endswith("engine.py")
    assert "sim/world/leap.py has changed since" in python(site, "-m", "simllm.cli", "--version")


def test_the_variant_goes_by_the_hashes_of_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMLLM_PURE_PYTHON", raising=False)
    assert variant(tmp_path) == "pure Python: not compiled at installation"
    (tmp_path / "a.py").write_text("A = 1\n", encoding="utf-8")
    sums = tmp_path / "compiled" / PLATFORM / "SHA256SUMS"
    sums.parent.mkdir(parents=True)
    digest = hashlib.sha256(b"A = 1\n").hexdigest()
    sums.write_text(f"{digest}  a.py\n", encoding="utf-8")
    assert variant(tmp_path) == "compiled"
    (tmp_path / "a.py").write_text("A = 2\n", encoding="utf-8")
    assert variant(tmp_path) == "pure Python: a.py has changed since it was compiled"
    (tmp_path / "a.py").unlink()
    assert variant(tmp_path) == "pure Python: a.py has changed since it was compiled"


def test_the_finder_leaves_all_other_modules_alone(tmp_path: Path) -> None:
    finder = CompiledFinder(tmp_path, ["sim/world/leap.py"])
    assert finder.find_spec("simllm.sim.world") is None
    found = finder.find_spec("simllm.sim.world.leap")
    assert found is not None
    assert found.origin == str(tmp_path / f"simllm.sim.world.leap{EXTENSION_SUFFIXES[0]}")


@pytest.mark.slow
def test_a_compiled_scheduler_can_be_extended_in_python(site: Path) -> None:
    counted, of_vllm = python(site, "-c", EXTENDED).split()
    assert int(counted) > 0
    assert of_vllm == "True"


def test_only_hot_modules_extend_the_classes_of_hot_modules() -> None:
    """But for those that say they may be extended, a compiled class cannot be extended by one that is not."""
    hot = {found.name for source in HOT for found in classes(Path(source)) if not found.decorator_list}
    wrong = [
        f"{source}: {found.name}"
        for source in modules()
        for found in classes(source)
        if source.as_posix() not in HOT and {ast.unparse(base) for base in found.bases} & hot
    ]
    assert {"DecodeSet", "Engine"} <= hot
    assert wrong == []


def classes(source: Path) -> list[ast.ClassDef]:
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
