"""The points of a study: each a whole scenario, named by the digest of all that its result depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ...errors import ScenarioError
from ...version import __version__
from ..overrides import apply_overrides
from ..scenario import parse_scenario, resolved, with_python_pinned
from .axes import columns, combinations, paths
from .orders import Payload
from .study_file import scenario_data
from .study_spec import StudySpec
from .worker import payload_of


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a study.

    values: of the axes, in their order. payload: the order to run it; None, with the `error`, for a
    combination that makes no scenario.
    """

    values: tuple[Any, ...]
    seed: int
    digest: str
    payload: Payload | None
    error: str | None = None


def expand(study: StudySpec, folder: Path, *, allow_python: bool = False) -> list[Point]:
    """Returns the points of a study, seeds changing fastest.

    Combinations that make no scenario are points with an error.
    Raises: ScenarioError if none makes one: then the study is wrong, and the first error says how.
    """
    data, base_dir = scenario_data(study, folder)
    data = apply_overrides(data, _overrides(study.set))
    digest_of_file = cache(_sha256)
    points: list[Point] = []
    first_error: ScenarioError | None = None
    for values in combinations(study.axes):
        for seed in _seeds(study, data):
            changes = dict(zip(paths(study.axes), values, strict=True))
            try:
                changed = apply_overrides(data, _overrides({**changes, "seed": seed}))
                scenario = with_python_pinned(parse_scenario(changed), base_dir, is_allowed=allow_python)
                payload = payload_of(resolved(scenario, base_dir), allow_python=allow_python)
            except ScenarioError as error:
                first_error = first_error or error
                broken = _digest({"changes": changes, "seed": seed, "data": data})
                points.append(Point(values, seed, broken, None, "; ".join(str(error).splitlines())))
                continue
            files = {name: digest_of_file(name) for name in _files(payload["scenario"])}
            digest = _digest({"scenario": payload["scenario"], "files": files})
            points.append(Point(values, seed, digest, payload))
    if first_error is not None and all(point.payload is None for point in points):
        raise first_error
    return points


def axis_cells(study: StudySpec, points: Sequence[Point]) -> dict[str, list[Any]]:
    """Returns the columns of the axes with a cell per point; mappings and lists as JSON."""
    cells = [[cell(value) for value in point.values] for point in points]
    return {column: [row[place] for row in cells] for place, column in enumerate(columns(study.axes))}


def cell(value: Any) -> Any:
    """Returns an axis's value as a cell of the results: mappings and lists as JSON."""
    return json.dumps(value) if isinstance(value, dict | list | tuple) else value


def _seeds(study: StudySpec, data: Mapping[str, Any]) -> Sequence[int]:
    if not isinstance(study.seeds, int):
        return study.seeds
    first = data.get("seed", 0)
    # A seed that is no number is told by the scenario's own check.
    return range(first, first + study.seeds) if isinstance(first, int) else [first]


def _overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"{path}={yaml.safe_dump(value, default_flow_style=True)}" for path, value in changes.items()]


def _files(value: Any) -> Iterator[str]:
    """Yields the files that a resolved scenario names: absolute paths, and those below a variable."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner)
    elif (
        isinstance(value, str) and value.startswith(("/", "$")) and Path(os.path.expandvars(value)).is_file()
    ):
        yield os.path.expandvars(value)


def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps({"simllm": __version__, **content}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
