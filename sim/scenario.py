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
from .policy.admission import AdmissionSpec
from .policy.fault_plan import FaultSpec
from .policy.router import LeastOutstandingSpec, RouterSpec
from .policy.scheduler.python_policy import PythonSpec, pinned
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
    admission: AdmissionSpec | None = None
    faults: FaultSpec | None = None
    slo: SloConfig = SloConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _pools_differ_in_name(self) -> Self:
        names = [pool.name for pool in self.pools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two pools are called {twice!r}; names must differ")
        return self

    @model_validator(mode="after")
    def _faults_hit_something(self) -> Self:
        if self.faults is None:
            return self
        num_places = sum(
            pool.replicas if pool.autoscaler is None else pool.autoscaler.max_replicas for pool in self.pools
        )
        beyond = self.faults.place_beyond(num_places)
        if beyond is not None:
            raise ValueError(f"a fault hits {beyond}; there are {num_places} replicas, counted from 0")
        if self.faults.may_slow and any(pool.parallel.pp > 1 for pool in self.pools):
            raise ValueError("slow GPUs are not modelled where a pool has parallel.pp > 1")
        return self

    @model_validator(mode="after")
    def _has_an_slo_to_scale_by(self) -> Self:
        scales = any(pool.autoscaler is not None and pool.autoscaler.metric == "slo" for pool in self.pools)
        if scales and not self.slo.model_dump(exclude_none=True):
            raise ValueError("an autoscaler's metric slo needs a limit in the scenario's `slo`")
        return self


def load_scenario(source: str | Path, overrides: Sequence[str] = ()) -> tuple[Scenario, Path]:
    """Reads a scenario from a file, or a shipped one by name; returns it and the folder of its paths.

    overrides: `path.to.field=value` each, the value in YAML.
    Raises: ScenarioError with every problem at once, each with its path in the scenario.
    """
    path = find_scenario(source)
    data = read_mapping(path, "must be a mapping with `workload` and `pools`")
    return parse_scenario(apply_overrides(data, overrides)), path.resolve().parent


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Reads a YAML file that must hold a mapping.

    Raises: ScenarioError, one line: it cannot be read, is no YAML, or no mapping (`what` it must be).
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or "is not UTF-8 text"
        raise ScenarioError([Problem(where, f"is not valid YAML: {problem}")]) from error
    except OSError as error:
        raise ScenarioError([Problem(str(path), error.strerror or "cannot be read")]) from error
    if not isinstance(data, dict):
        raise ScenarioError([Problem(str(path), what)])
    return data


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


def with_python_pinned(scenario: Scenario, base_dir: Path, *, is_allowed: bool) -> Scenario:
    """Returns the scenario with the user's own policies named by absolute path and digest.

    Raises: ScenarioError if there are any though they are not allowed to run, or if one has changed.
    """
    pools: list[PoolConfig] = []
    for number, pool in enumerate(scenario.pools):
        path = f"$.pools[{number}].scheduler"
        if isinstance(pool.scheduler, PythonSpec):
            if not is_allowed:
                what = "runs Python code from a file; if you trust it, say --allow-python"
                raise ScenarioError([Problem(f"{path}.path", what, pool.scheduler.path)])
            pool = pool.model_copy(update={"scheduler": pinned(pool.scheduler, base_dir, path)})
        pools.append(pool)
    return scenario.model_copy(update={"pools": tuple(pools)})


def lock(scenario: Scenario, base_dir: Path) -> str:
    """Returns the scenario as YAML with every default written out, so that it means the same anywhere."""
    plain = resolved(scenario, base_dir).model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def resolved(scenario: Scenario, base_dir: Path) -> Scenario:
    """Returns the scenario such that it means the same from any folder: relative paths become absolute."""
    pools = tuple(_pool_resolved(pool, base_dir) for pool in scenario.pools)
    workload = resolve_workload(scenario.workload, base_dir)
    return scenario.model_copy(update={"workload": workload, "pools": pools})


def _pool_resolved(pool: PoolConfig, base_dir: Path) -> PoolConfig:
    named = {"model": pool.model, "device": pool.device, "engine_profile": pool.engine_profile}
    update = {field: from_folder(name, base_dir) for field, name in named.items() if name is not None}
    return pool.model_copy(update=update)


def sha256_of(lock_yaml: str) -> str:
    """Returns the digest that names a resolved scenario."""
    return hashlib.sha256(lock_yaml.encode()).hexdigest()
