"""Compiles the hot modules by mypyc; what else is to say about the package stands in pyproject.toml.

Their compiled twins lie in a folder of their own, `compiled/`, with the hashes of the sources they were made
from, so that one is never taken for a source that has changed since: see `hot_modules.py`. Without a C
compiler, or with SIMLLM_PURE_PYTHON set, nothing is compiled and the package is pure Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOT: list[str] = PYPROJECT["tool"]["simllm"]["hot-modules"]
PACKAGES: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]

# What is installed beside mypy must not change what it sees: the same sources give the same C everywhere.
COMPILE = """
import sys
from mypyc.build import mypycify
from setuptools import setup
options = ["--config-file=", "--no-site-packages", "--follow-imports=silent", "--ignore-missing-imports"]
extensions = mypycify([*options, *sys.argv[1:]], group_name="simllm")
setup(name="simllm", ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
"""


def can_compile() -> bool:
    """Returns whether there are a C compiler and Python's headers, and nobody asked to do without."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    has_compiler = os.name == "nt" or shutil.which(compiler) is not None
    return has_headers and has_compiler and not os.environ.get("SIMLLM_PURE_PYTHON")


class BuildHotModules(build_ext):
    """Compiles the hot modules: for a wheel a part of it, for an editable installation into the checkout.

    If that fails, an installation goes on in pure Python; only `setup.py build_ext --inplace` fails, too.
    """

    def run(self) -> None:
        folder = self._folder()
        shutil.rmtree(folder, ignore_errors=True)
        if not self.extensions:
            return
        with tempfile.TemporaryDirectory() as work:
            done = compile_in(Path(work))
            if done.returncode == 0:
                collect(Path(work), folder)
                return
        print(done.stdout, done.stderr, sep="", file=sys.stderr)
        print("simllm: its hot modules could not be compiled; it runs in pure Python", file=sys.stderr)
        if self.inplace and not self.editable_mode:
            raise SystemExit(1)

    def get_outputs(self) -> list[str]:
        return [str(file) for file in self._folder().glob("*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def _folder(self) -> Path:
        package = ROOT if self.inplace else Path(self.build_lib, "simllm")
        # `.cpython-311-x86_64-linux-gnu.so` and its like: checkouts may be shared by several Pythons.
        return package / "compiled" / EXTENSION_SUFFIXES[0].split(".")[1]


def compile_in(work: Path) -> subprocess.CompletedProcess[str]:
    """Compiles a copy of the package: mypyc goes by folders' names, and a checkout may be called anything."""
    for package in PACKAGES:
        inner = Path(*package.split(".")[1:])
        (work / "simllm" / inner).mkdir(parents=True, exist_ok=True)
        for source in (ROOT / inner).glob("*.py"):
            shutil.copy(source, work / "simllm" / inner)
    (work / "simllm" / "setup.py").unlink()
    command = [sys.executable, "-c", COMPILE, *(f"simllm/{source}" for source in HOT)]
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)


def collect(work: Path, folder: Path) -> None:
    """Moves what was compiled to `folder`, each under its full name, and notes the sources' hashes."""
    folder.mkdir(parents=True)
    suffix = EXTENSION_SUFFIXES[0]
    for built in (*work.glob(f"*{suffix}"), *(work / "simllm").rglob(f"*{suffix}")):
        shutil.move(built, folder / ".".join(built.relative_to(work).parts))
    # In the form of `sha256sum`, which can check it from the package's folder.
    hashes = [f"{hashlib.sha256((ROOT / source).read_bytes()).hexdigest()}  {source}\n" for source in HOT]
    (folder / "SHA256SUMS").write_text("".join(hashes), encoding="utf-8")


if __name__ == "__main__":
    setup(
        script_name="setup.py",  # by which it is told from the package's modules
        cmdclass={"build_ext": BuildHotModules},
        # A name for what is compiled; without any the wheel is one for all platforms.
        ext_modules=[Extension("simllm.compiled.simllm__mypyc", [])] if can_compile() else [],
    )
