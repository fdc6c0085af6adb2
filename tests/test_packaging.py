"""What is installed: the public names, what an import loads, and what wheels and sdist hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import PYPROJECT, ROOT, build, modules, wheel_in

import simllm


def shipped_data() -> Iterator[str]:
    """Yields the data files of the checkout that every installation must have."""
    folders = ("scenarios", "scenarios/data", "hwmodels/devices", "hwmodels/models", "hwmodels/profiles")
    yield "hwmodels/prices.yaml"
    for folder in (*folders, "hwmodels/engine_profiles", "scenarios/studies"):
        for path in (ROOT / folder).glob("*.*"):
            yield path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds sdist and wheel in pure Python."""
    return build(tmp_path_factory.mktemp("pure"), is_pure=True)


def test_the_wheel_holds_every_module_and_data_file(built: Path) -> None:
    wheel = wheel_in(built)
    names = zipfile.ZipFile(wheel).namelist()
    wanted = [*(path.as_posix() for path in modules()), *shipped_data(), "py.typed"]
    missing = {f"simllm/{name}" for name in wanted} - set(names)
    assert missing == set()
    meta = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in names} == {"simllm", meta}, "nothing but simllm is installed"
    assert not [name for name in names if name.startswith(("simllm/tests/", "simllm/setup"))]


def test_the_pure_wheel_is_one_for_all_platforms(built: Path) -> None:
    wheel = wheel_in(built)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("simllm/compiled/")]


def test_the_sdist_holds_what_a_wheel_is_built_from(built: Path) -> None:
    (sdist,) = built.glob("simllm-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {*shipped_data(), "py.typed", "pyproject.toml", "setup.py", "LICENSE", "README.md", "cli.py"}
    assert wanted <= names


def test_every_package_is_listed() -> None:
    packages = {".".join(("simllm", *path.parent.parts)) for path in modules()}
    assert sorted(packages) == PYPROJECT["tool"]["setuptools"]["packages"]


def test_every_public_name_exists_and_the_list_is_sorted() -> None:
    assert simllm.__all__ == sorted(simllm.__all__)
    assert [name for name in simllm.__all__ if not hasattr(simllm, name)] == []
    assert {"Result", "Scenario", "SimllmError", "simulate"} <= set(simllm.__all__)


def test_importing_simllm_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, simllm; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "simllm" in loaded
    assert not loaded & {"matplotlib", "pandas", "torch", "triton"}


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == simllm.__version__


def test_constraints_pin_each_direct_dependency_to_one_version() -> None:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=]", requirement)[0].lower() for requirement in wanted} - {"setuptools"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}
    assert names <= pins
    assert "torch" in pins
    (mypy,) = (line for line in lines if line.startswith("mypy=="))
    assert mypy in PYPROJECT["build-system"]["requires"], "what compiles is what checks the types"
