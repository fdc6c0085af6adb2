"""Builds the package as pip does, from a copy of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import simllm

ROOT = Path(simllm.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

BUILD = """
import sys
from setuptools import build_meta
_, out = sys.argv
build_meta.build_wheel(out)
build_meta.build_sdist(out)
"""


def modules() -> list[Path]:
    """Returns the Python files of the package, relative to its root."""
    folders = ("sim", "hwmodels", "kernels", "calibrate")
    found = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in found if path != ROOT / "setup.py"]


def build(scratch: Path, *, is_pure: bool) -> Path:
    """Builds an sdist and a wheel, which must be compiled unless `is_pure`; returns their folder.

    Builds from a copy, since setuptools leaves its scratch files beside the sources.
    """
    pytest.importorskip("setuptools", minversion="77", reason="the project needs setuptools 77 to be built")
    copy, out = scratch / "checkout", scratch / "dist"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "compiled", "dist", "out")
    shutil.copytree(ROOT, copy, ignore=skipped)
    command = [sys.executable, "-P", "-W", "ignore", "-c", BUILD, str(out)]
    environment = os.environ | {"SIMLLM_PURE_PYTHON": "1" if is_pure else ""}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "could not be compiled" not in done.stderr, done.stderr
    return out


def wheel_in(folder: Path) -> Path:
    """Returns the one wheel in a folder."""
    (wheel,) = folder.glob("simllm-*.whl")
    return wheel
