"""Goodput: the highest request rate that keeps a service level objective, per GPU and per dollar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import Problem, ScenarioError, SimllmError
from ..deployment import deploy_all
from ..overrides import apply_overrides
from ..scenario import Scenario, find_scenario, parse_scenario, read_mapping, resolved, with_python_pinned
from .cost import fleet_of
from .defaults import CONFIDENCE, NUM_SEEDS, TOLERANCE
from .goodput_result import Goodput
from .local_workers import LocalWorkers, num_cores
from .orders import Order, Workers
from .rate import RateKnob, rate_knob
from .search import Bracket, find_crossing, rounded_rate
from .slo import Objective, SloTerm, objective_of, parse_slo
from .trial import Trial
from .worker import payload_of

_STEP_UP = 1.1
_MAX_STEPS_UP = 5

OnTrial = Callable[[Trial], None]


def goodput(
    scenario: Scenario | str | Path,
    slo: str | None = None,
    *,
    attainment: float | None = None,
    num_seeds: int = NUM_SEEDS,
    confidence: float = CONFIDENCE,
    tolerance: float = TOLERANCE,
    prices: Mapping[str, float] | None = None,
    overrides: Sequence[str] = (),
    base_dir: str | Path = ".",
    allow_python: bool = False,
    jobs: int | None = None,
    on_trial: OnTrial | None = None,
) -> Goodput:
    """Searches the highest request rate at which an SLO is kept, with replications over seeds.

    scenario: a path, a shipped name, or a `Scenario`, whose paths are relative to `base_dir`. slo: as in
    `ttft_p99=500ms,tpot_p99=50ms`, by default the scenario's own. attainment: share of requests that must
    keep all limits at once. num_seeds: runs of each rate, with the same seeds at all of them; a recorded
    trace is the same for every seed and runs once. confidence: with which the SLO is kept at the rate.
    tolerance: relative width of the last bracket. prices: USD per GPU-hour by device, `*` for all others.
    on_trial is called after each rate.
    Raises: SimllmError if the scenario cannot run, has no rate to search, or no SLO.
    """
    data, folder = _plain(scenario, Path(base_dir), overrides)
    original = parse_scenario(data)
    objective = _objective(original, slo, attainment)
    knob = rate_knob(data, folder)
    pinned = with_python_pinned(original, folder, is_allowed=allow_python)
    fleet = fleet_of(deploy_all(pinned.pools, folder), prices or {})
    seeds = range(original.seed, original.seed + (1 if knob.is_recorded else num_seeds))
    with LocalWorkers(min(jobs or num_cores(), len(seeds))) as workers:
        system = _System(knob=knob, folder=folder, objective=objective, allow_python=allow_python)
        laboratory = _Laboratory(system, seeds, confidence, workers, on_trial)
        bracket, _ = find_crossing(laboratory.margin_at, knob.start, tolerance=tolerance)
        laboratory.lose_in_each_run(bracket)
    return Goodput(original.name, knob, objective, bracket, laboratory.trials, fleet, confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """What is asked how much it carries."""

    knob: RateKnob
    folder: Path
    objective: Objective
    allow_python: bool

    def order(self, request_rate: float, seed: int) -> Order:
        """Returns the order to play it at this rate [req/s]."""
        scenario = self.knob.scenario(request_rate, seed)
        pinned = with_python_pinned(scenario, self.folder, is_allowed=self.allow_python)
        plain = resolved(pinned, self.folder)
        return Order(str(seed), payload_of(plain, allow_python=self.allow_python, slo=self.objective))


@dataclass(frozen=True, slots=True)
class _Laboratory:
    """Tries rates and keeps what they gave."""

    system: _System
    seeds: Sequence[int]
    confidence: float
    workers: Workers
    on_trial: OnTrial | None
    trials: dict[float, Trial] = field(default_factory=dict)

    def margin_at(self, request_rate: float) -> float | None:
        """Runs a rate; returns its margin, None where a lower rate would do no better."""
        orders = [self.system.order(request_rate, seed) for seed in self.seeds]
        answers = {answer.key: answer for answer in self.workers.answers(orders)}
        failed = next((answer.error for answer in answers.values() if answer.row is None), None)
        if failed is not None:
            raise SimllmError(failed)
        rows = tuple(answers[order.key].row or {} for order in orders)
        needed = self.system.objective.needed
        trial = Trial(request_rate, tuple(self.seeds), rows, needed, self.confidence)
        self.trials[request_rate] = trial
        if self.on_trial is not None:
            self.on_trial(trial)
        return None if trial.is_idle and not trial.is_met else trial.margin

    def lose_in_each_run(self, bracket: Bracket) -> None:
        """Raises the rate a little until every single run loses the objective, so that it is known where."""
        if bracket.low is None or bracket.high is None or len(self.seeds) < 2:
            return
        for _ in range(_MAX_STEPS_UP):
            highest = self.trials[max(self.trials)]
            if all(highest.margin_of_run(place) < 0 for place in range(len(self.seeds))):
                return
            self.margin_at(rounded_rate(highest.request_rate * _STEP_UP))


def _plain(
    scenario: Scenario | str | Path, base_dir: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], Path]:
    if isinstance(scenario, Scenario):
        return apply_overrides(scenario.model_dump(mode="json"), overrides), base_dir
    path = find_scenario(scenario)
    data = read_mapping(path, "must be a mapping with `workload` and `pools`")
    return apply_overrides(data, overrides), path.resolve().parent


def _objective(scenario: Scenario, slo: str | None, attainment: float | None) -> Objective:
    if slo is not None:
        return parse_slo(slo, attainment)
    limits = {metric: getattr(scenario.slo, f"{metric}_ms") for metric in ("ttft", "tpot", "e2el")}
    terms = [SloTerm(metric, limit) for metric, limit in limits.items() if limit is not None]
    if not terms:
        what = "is required, as in ttft_p99=500ms,tpot_p99=50ms: the scenario has no slo of its own"
        raise ScenarioError([Problem("--slo", what)])
    return objective_of(terms, attainment)
