"""Loads a scheduler that a user has written, from the very file that the scenario names.

Its code runs with the rights of whoever runs simllm, so nothing here is reached unless that was allowed.
"""

from __future__ import annotations

import hashlib
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from ....errors import Problem, ScenarioError, nearest_choice
from ..kv.blocks import KvCache
from .base import Scheduler
from .python_spec import PythonSpec

__all__ = ["PythonSpec", "make_python_policy", "pinned"]

_METHODS = ("add", "schedule", "outlook", "advance", "finish", "moved", "check", "knows_time", "pads_decodes")


class _Loader(SourceLoader):
    """Runs a source that has been read and checked already, instead of reading the file once more."""

    def __init__(self, file: str, source: bytes) -> None:
        self._file = file
        self._source = source

    def get_filename(self, fullname: str) -> str:
        """Returns the file, for tracebacks."""
        return self._file

    def get_data(self, path: str | bytes) -> bytes:
        """Returns the source; there is no byte code beside it. Raises: OSError for another path."""
        if path != self._file:
            raise OSError(f"{path!r} is not read")
        return self._source


def pinned(spec: PythonSpec, base_dir: Path, path: str) -> PythonSpec:
    """Returns the spec with the file's absolute path and digest.

    path: where the spec stands in the scenario. Raises: ScenarioError if there is no such file, or if it is
    not the one whose digest the spec has.
    """
    file = (base_dir / spec.file).resolve()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ScenarioError(
            [Problem(f"{path}.path", error.strerror or "cannot be read", spec.path)]
        ) from error
    if spec.sha256 not in (None, digest):
        what = f"{file.name} has changed: its SHA-256 is {digest}, not"
        raise ScenarioError([Problem(f"{path}.sha256", what, spec.sha256)])
    return spec.model_copy(update={"path": f"{file}:{spec.class_name}", "sha256": digest})


def make_python_policy(
    spec: PythonSpec, *, kv: KvCache, max_model_len: int, block_bytes: int = 0
) -> Scheduler:
    """Returns the user's policy, made with the arguments that every scheduler is made with.

    Raises: ScenarioError if the file cannot be run, or has no such class.
    """
    module = _run(spec)
    policy = getattr(module, spec.class_name, None)
    if not isinstance(policy, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        nearest = nearest_choice(spec.class_name, classes)
        raise ScenarioError([Problem(spec.file, "has no such class", spec.class_name, nearest)])
    missing = [name for name in _METHODS if not hasattr(policy, name)]
    if missing:
        what = (
            f"{spec.class_name} is no scheduler: it lacks {', '.join(missing)}; derive it from SchedulerCore"
        )
        raise ScenarioError([Problem(spec.file, what)])
    scheduler: Scheduler = policy(spec, kv=kv, max_model_len=max_model_len, block_bytes=block_bytes)
    return scheduler


def _run(spec: PythonSpec) -> ModuleType:
    """Runs the file as a module of its own; it is not registered, and no byte code is left beside it."""
    source = Path(spec.file).read_bytes()
    if hashlib.sha256(source).hexdigest() != spec.sha256:
        raise ScenarioError([Problem(spec.file, "is not the file that was allowed to run")])
    loader = _Loader(spec.file, source)
    module_spec = spec_from_loader(Path(spec.file).stem, loader, origin=spec.file)
    assert module_spec is not None, "a loader was given"
    module = module_from_spec(module_spec)
    try:
        loader.exec_module(module)
    except Exception as error:
        what = f"cannot be run: {type(error).__name__}: {error}"
        raise ScenarioError([Problem(spec.file, what)]) from error
    return module
