"""Replays what a real engine did and says how far off the simulation is: `simllm validate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TraceError
from ..outcome.results import Result
from ..run import prepare, simulate_prepared
from ..scenario import RunConfig, Scenario
from ..workload.spec import VllmBenchSpec
from ..workload.traces.vllm_bench import BenchResult
from .compare import RunErrors, compare, mean_absolute
from .engine_block import pool_of, read_engine_block
from .step_times import ClassErrors, errors_by_class, read_busy_steps

__all__ = ["Validation", "mean_absolute", "scenario_of", "validate_run"]


@dataclass(frozen=True, slots=True)
class Validation:
    """One measured run against its simulation: the run's errors and, from its steps, the step times'."""

    run: RunErrors
    step_times: dict[str, ClassErrors] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values for JSON."""
        steps = self.step_times
        if steps is None:
            return self.run.as_dict()
        return {**self.run.as_dict(), "step_times": {kind: asdict(errors) for kind, errors in steps.items()}}


def validate_run(path: Path, *, device: str | None = None, steps_path: Path | None = None) -> Validation:
    """Simulates the run that a detailed `vllm bench serve` file records, and returns the errors.

    device: what to simulate on, instead of the GPU that the file names. steps_path: the engine's record of
    its steps.
    Raises: TraceError, ScenarioError if a file is incomplete or has settings that are not modelled.
    """
    bench = BenchResult(path, None)
    recorded = None if steps_path is None else read_busy_steps(steps_path)
    prepared = prepare(scenario_of(bench, device=device), path.parent)
    result = simulate_prepared(prepared)
    errors = compare(
        path,
        bench,
        result.summary(),
        num_hit_tokens=sum(pool["prefix_hit_tokens"] for pool in result.summary()["kv"]),
        waiting_share=_waiting_share(result),
    )
    if recorded is None:
        return Validation(errors)
    deployment = prepared.deployments[0]
    return Validation(errors, errors_by_class(recorded, deployment.step_model, deployment.graphs))


def scenario_of(bench: BenchResult, *, device: str | None = None) -> Scenario:
    """Returns the scenario that replays a file: the engine's own settings, its requests as they were sent.

    Raises: TraceError for a file without an `engine` block; ScenarioError for settings not modelled.
    """
    block = bench.scalars.get("engine")
    if not isinstance(block, dict):
        raise TraceError(bench.path, None, "has no `engine` block with the engine's settings")
    engine = read_engine_block(block, bench.path)
    return Scenario(
        name=bench.path.name,
        workload=VllmBenchSpec(path=str(bench.path.resolve())),
        pools=(pool_of(engine, device=device, path=bench.path),),
        run=RunConfig(record_steps=True),
    )


def _waiting_share(result: Result) -> float:
    """Returns the share of the busy time in which someone waits for admission, 0..1."""
    steps = result.steps
    duration = steps["duration_ms"].to_numpy(dtype=np.float64)
    busy = float(duration.sum())
    return float(duration[steps["num_waiting"].to_numpy() > 0].sum()) / busy if busy else 0.0
