"""A scenario: everything that a run depends on, as one validated, frozen value."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from ..errors import Problem, ScenarioError, nearest_choice
from .deployment import from_folder
from .overrides import apply_overrides
from .policy.router import LeastOutstandingSpec, RouterSpec
from .pool import PoolConfig
from .problems import problems_of
from .spec import Spec
from .workload.build import resolve_workload
from .workload.spec import WorkloadSpec

SHIPPED_SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"


class SloConfig(Spec):
    """Service level objective: a request meets it if it keeps every limit that is set [ms]."""

    ttft_ms: float | None = Field(None, gt=0)
    tpot_ms: float | None = Field(None, gt=0)
    e2el_ms: float | None = Field(None, gt=0)


class RunConfig(Spec):
    """How the run itself is done; none of it changes a row."""

    leaps: bool = Field(True, description="Let decode steps pass many at a time where nothing intervenes.")
    record_steps: bool = Field(True, description="Keep a row per engine step.")


class Scenario(Spec):
    """One system under one workload."""

    name: str = Field("scenario", min_length=1)
    seed: int = Field(0, ge=0)
    workload: WorkloadSpec
    pools: tuple[PoolConfig, ...] = Field(min_length=1)
    router: RouterSpec = LeastOutstandingSpec()
    slo: SloConfig = SloConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _pools_differ_in_name(self) -> Self:
        names = [pool.name for pool in self.pools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two pools are called {twice!r}; names must differ")
        return self


def load_scenario(source: str | Path, overrides: Sequence[str] = ()) -> tuple[Scenario, Path]:
    """Reads a scenario from a file, or a shipped one by name; returns it and the folder of its paths.

    overrides: `path.to.field=value` each, the value in YAML.
    Raises: ScenarioError with every problem at once, each with its path in the scenario.
    """
    path = find_scenario(source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        what = getattr(error, "problem", None) or "is not UTF-8 text"
        raise ScenarioError([Problem(where, f"is not valid YAML: {what}")]) from error
    except OSError as error:
        raise ScenarioError([Problem(str(path), error.strerror or "cannot be read")]) from error
    if not isinstance(data, dict):
        raise ScenarioError([Problem(str(path), "must be a mapping with `workload` and `pools`")])
    return parse_scenario(apply_overrides(data, overrides)), path.resolve().parent


def parse_scenario(data: dict[str, Any]) -> Scenario:
    """Returns the scenario that plain data describes. Raises: ScenarioError with every problem at once."""
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError(problems_of(error, Scenario, data)) from error


def find_scenario(source: str | Path) -> Path:
    """Returns the file of a scenario. Raises: ScenarioError if there is neither such a file nor name."""
    path = Path(source)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(SHIPPED_SCENARIOS.glob("*.yaml"))}
    if str(source) in shipped:
        return shipped[str(source)]
    nearest = nearest_choice(path.stem, shipped)
    raise ScenarioError([Problem(str(source), "no such file or shipped scenario", nearest=nearest)])


def lock(scenario: Scenario, base_dir: Path) -> str:
    """Returns the scenario as YAML with every default written out, so that it means the same anywhere."""
    pools = tuple(
        pool.model_copy(
            update={"model": from_folder(pool.model, base_dir), "device": from_folder(pool.device, base_dir)}
        )
        for pool in scenario.pools
    )
    workload = resolve_workload(scenario.workload, base_dir)
    resolved = scenario.model_copy(update={"workload": workload, "pools": pools})
    return yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def sha256_of(lock_yaml: str) -> str:
    """Returns the digest that names a resolved scenario."""
    return hashlib.sha256(lock_yaml.encode()).hexdigest()
