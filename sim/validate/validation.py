"""One measured run against its simulation, from the files to the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..outcome.results import Result
from ..run import Prepared, simulate_prepared
from ..workload.traces.vllm_bench import BenchResult
from .cold import ColdStep, cold_gaps, cold_steps
from .compare import Compared, Count, compare
from .goals import MIN_REQUESTS_FOR_P99, GoalClass, classify
from .measured import Floats, MeasuredRun, measured_run
from .recorded_steps import RecordedStep, num_preemptions, read_steps
from .replay import GivenSettings, prepare_replay, replay_of
from .saturation import Saturation, saturation_of
from .step_times import ClassErrors, PricedStep, errors_by_class, price


@dataclass(frozen=True, slots=True)
class Validation:
    """One measured run against its simulation.

    simulated_ms: latency -> one value per finished request [ms]. cold: what stalled the real engine.
    step_times, priced: errors of the step times by class and the steps themselves, empty without a record.
    profile: name and kind of the hardware profile. notes: what had to be assumed.
    """

    file: str
    run: MeasuredRun
    compared: Compared
    simulated_ms: dict[str, Floats]
    saturation: Saturation
    goal_class: GoalClass
    cold: tuple[ColdStep, ...]
    step_times: dict[str, ClassErrors]
    priced: tuple[PricedStep, ...]
    profile: dict[str, Any]
    notes: tuple[str, ...]

    def flat_errors(self) -> dict[str, float]:
        """Returns the errors by name, as in `ttft_p50`; 99th percentiles only of enough requests."""
        compared = self.compared
        flat = dict(compared.throughput_errors)
        for metric, errors in compared.errors.items():
            flat |= {f"{metric}_{name}": error for name, error in errors.items()}
        for name in ("prefix_hit_tokens", "num_preemptions"):
            count: Count = getattr(compared, name)
            if count.measured and count.error is not None:
                flat[name] = count.error
        if compared.num_compared < MIN_REQUESTS_FOR_P99:
            flat = {name: error for name, error in flat.items() if not name.endswith("_p99")}
        return flat

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values for JSON."""
        compared, saturation = self.compared, self.saturation
        return {
            "file": self.file,
            "class": self.goal_class.name,
            "num_requests": compared.num_requests,
            "num_compared": compared.num_compared,
            "errors": {**compared.errors, **compared.throughput_errors},
            "measured": {**compared.measured, **compared.measured_throughput},
            "simulated": {**compared.simulated, **compared.simulated_throughput},
            "prefix_hit_tokens": _count(compared.prefix_hit_tokens),
            "num_preemptions": _count(compared.num_preemptions),
            "saturation": asdict(saturation),
            "cold_steps": [asdict(step) for step in self.cold],
            "step_times": {kind: asdict(errors) for kind, errors in self.step_times.items()},
            "profile": self.profile,
            "notes": list(self.notes),
        }


def validate_run(
    path: Path, *, steps_path: Path | None = None, given: GivenSettings | None = None
) -> Validation:
    """Simulates the run that a detailed `vllm bench serve` file records, and returns the errors.

    steps_path: the engine's record of its steps. given: settings that the file lacks or that override it.
    Raises: TraceError, ScenarioError if a file is incomplete or has settings that are not modelled.
    """
    bench = BenchResult(path, None)
    run = measured_run(bench)
    steps = None if steps_path is None else read_steps(steps_path)
    prepared, notes = prepare_replay(bench, replay_of(bench, given or GivenSettings()))
    result = simulate_prepared(prepared)
    cold = cold_gaps(run) if steps is None else cold_steps(steps)
    compared = compare(
        run,
        result,
        cold,
        num_preemptions=None if steps is None else num_preemptions(steps),
        is_closed=prepared.demand.num_clients is not None,
    )
    saturation = saturation_of(prepared, result)
    priced = _priced(prepared, steps or [])
    return Validation(
        file=str(path),
        run=run,
        compared=compared,
        simulated_ms=_latencies(result),
        saturation=saturation,
        goal_class=_class_of(prepared, compared, saturation),
        cold=tuple(cold),
        step_times=errors_by_class(priced),
        priced=tuple(priced),
        profile=dict(result.meta.profile),
        notes=(*notes, *_losses(compared, cold)),
    )


def _priced(prepared: Prepared, steps: list[RecordedStep]) -> list[PricedStep]:
    deployment = prepared.deployments[0]
    return price(steps, deployment.step_model, deployment.graphs)


def _latencies(result: Result) -> dict[str, Floats]:
    finished = result.requests
    finished = finished[finished["status"] == "finished"]
    return {metric: finished[f"{metric}_ms"].to_numpy(dtype="float64") for metric in ("ttft", "tpot", "e2el")}


def _class_of(prepared: Prepared, compared: Compared, saturation: Saturation) -> GoalClass:
    deployment, preemptions = prepared.deployments[0], compared.num_preemptions
    return classify(
        deployment.model,
        deployment.num_gpus,
        has_stages=deployment.config.parallel.pp > 1,
        is_closed=prepared.demand.num_clients is not None,
        is_near=saturation.is_near,
        has_preempted=bool(preemptions.simulated or preemptions.measured),
    )


def _losses(compared: Compared, cold: list[ColdStep]) -> tuple[str, ...]:
    """Returns why requests are left out of the statistics, if any are."""
    num_left_out = compared.num_requests - compared.num_compared
    notes = tuple(f"cold {step.describe()}: requests that it hit count on neither side" for step in cold)
    if num_left_out:
        notes += (f"{num_left_out} of {compared.num_requests} requests left out of the statistics",)
    return notes


def _count(count: Count) -> dict[str, Any]:
    return {**asdict(count), "error": count.error}
