"""Which twin of a hot module is imported: the one compiled at installation, or the source itself.

The modules in which a run spends its time are compiled by mypyc where there is a C compiler (`setup.py`),
with the same results. They lie in `compiled/`, beside the hashes of their sources. If one of these has
changed since, all run in Python until they are compiled anew, for they call each other by address. A set
SIMLLM_PURE_PYTHON asks for Python as well.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(*, allow_interpreted_subclasses):
        """Tells mypyc whether a compiled class may be extended in Python; does nothing."""
        return lambda marked: marked


_PACKAGE = Path(__file__).parent
_SHARED = "simllm__mypyc"  # the library that holds them all


class CompiledFinder:
    """Finds the compiled twins of `sources` in `folder`, and the library that they share."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self._folder = folder
        self._names = {_SHARED, *(_module_name(source) for source in sources)}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns where a compiled module lies, None for any other module; as `sys.meta_path` asks."""
        if fullname not in self._names:
            return None
        file = str(self._folder / f"{fullname}{EXTENSION_SUFFIXES[0]}")
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def prefer_compiled() -> None:
    """Lets the compiled twins be imported from now on, if they are what their sources say."""
    sources = _hashes(folder := _folder(_PACKAGE))
    if _why_pure(_PACKAGE, sources) is None:
        sys.meta_path.insert(0, CompiledFinder(folder, tuple(sources)))


def variant(package: Path = _PACKAGE) -> str:
    """Returns `compiled`, or `pure Python` and why."""
    reason = _why_pure(package, _hashes(_folder(package)))
    return "compiled" if reason is None else f"pure Python: {reason}"


def _why_pure(package: Path, hashes: dict[str, str]) -> str | None:
    if os.environ.get("SIMLLM_PURE_PYTHON"):
        return "SIMLLM_PURE_PYTHON is set"
    if not hashes:
        return "not compiled at installation"
    for source, noted in hashes.items():
        file = package / source
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != noted:
            return f"{source} has changed since it was compiled"
    return None


def _folder(package: Path) -> Path:
    return package / "compiled" / EXTENSION_SUFFIXES[0].split(".")[1]


def _hashes(folder: Path) -> dict[str, str]:
    """Returns what the compiled twins were made from, by source; empty if there are none."""
    file = folder / "SHA256SUMS"
    if not file.exists():
        return {}
    lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return {source: digest for digest, source in lines}


def _module_name(source: str) -> str:
    return f"simllm.{source.removesuffix('.py').replace('/', '.')}"
