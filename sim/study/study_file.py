"""Where a study is found and how it is read: files, shipped names, plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ...errors import Problem, ScenarioError, nearest_choice
from ..problems import problems_of
from ..scenario import SHIPPED_SCENARIOS, find_scenario, read_mapping
from .study_spec import StudySpec

SHIPPED_STUDIES = SHIPPED_SCENARIOS / "studies"


def load_study(source: str | Path, overrides: Sequence[str] = ()) -> tuple[StudySpec, Path]:
    """Reads a study from a file, or a shipped one by name; returns it and the folder of its paths.

    overrides: `path.to.field=value` each, fields of the scenario that all points share.
    Raises: ScenarioError with every problem at once, each with its path in the study.
    """
    path = _find_study(source)
    study = parse_study(read_mapping(path, "must be a mapping with `scenario` and `axes`"))
    changed: dict[str, Any] = {}
    for override in overrides:
        field, separator, text = override.partition("=")
        if not separator or not field:
            raise ScenarioError([Problem("--set", "must be path.to.field=value", override)])
        changed[field] = _yaml_value(field, text)
    return study.model_copy(update={"set": {**study.set, **changed}}), path.resolve().parent


def parse_study(data: Mapping[str, Any]) -> StudySpec:
    """Returns the study that plain data describes. Raises: ScenarioError with every problem at once."""
    try:
        return StudySpec.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(problems_of(error, StudySpec, dict(data))) from error


def scenario_data(study: StudySpec, folder: Path) -> tuple[dict[str, Any], Path]:
    """Returns the scenario of a study as plain data, and the folder that its paths are relative to.

    Raises: ScenarioError if there is neither such a file beside the study nor such a shipped scenario.
    """
    if isinstance(study.scenario, dict):
        return study.scenario, folder
    beside = folder / study.scenario
    path = find_scenario(beside if beside.is_file() else study.scenario)
    return read_mapping(path, "must be a mapping with `workload` and `pools`"), path.resolve().parent


def _find_study(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(SHIPPED_STUDIES.glob("*.yaml"))}
    if str(source) in shipped:
        return shipped[str(source)]
    nearest = nearest_choice(path.stem, shipped)
    raise ScenarioError([Problem(str(source), "no such file or shipped study", nearest=nearest)])


def _yaml_value(field: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ScenarioError([Problem(f"--set {field}", "has a value that is not valid YAML", text)]) from None
