"""Paths in a scenario: relative to its own folder, or below one of two folders named by the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from ...errors import TraceError

FOLDER_VARIABLES = ("SIMLLM_TRACES", "SIMLLM_MEASURED")
_PREFIX = re.compile(r"\$\{(" + "|".join(FOLDER_VARIABLES) + r")\}(?:/|$)")


def _check_variables(path: str) -> str:
    rest = _PREFIX.sub("", path, count=1) if _PREFIX.match(path) else path
    if "$" in rest:
        allowed = " or ".join(f"${{{name}}}/" for name in FOLDER_VARIABLES)
        raise ValueError(f"the only variables are {allowed} at the beginning of a path")
    return path


DataPath = Annotated[
    str,
    Field(
        min_length=1,
        description="Relative to the scenario's folder, or beginning with ${SIMLLM_TRACES}/ or"
        " ${SIMLLM_MEASURED}/, the folders of public traces and of measured runs.",
    ),
    AfterValidator(_check_variables),
]


def find_data_file(path: str, base_dir: Path) -> Path:
    """Returns where `path` of a scenario in `base_dir` lies.

    Raises: TraceError naming the path, and the environment variable if it begins with one, when there is
    no such file.
    """
    named = _PREFIX.match(path)
    if named is None:
        return _existing(base_dir / path, "no such file")
    variable = named.group(1)
    folder = os.environ.get(variable, "")
    if not folder:
        raise TraceError(path, None, f"the environment variable {variable} is not set to its folder")
    return _existing(Path(folder) / path[named.end() :], f"no such file ({variable} is {folder})")


def absolute_path(path: str, base_dir: Path) -> str:
    """Returns `path` such that it means the same from any folder; one with a variable already does."""
    return path if _PREFIX.match(path) else str((base_dir / path).resolve())


def _existing(path: Path, complaint: str) -> Path:
    if not path.exists():
        raise TraceError(path, None, complaint)
    return path
