"""Fits the constants of an engine version to recorded steps of real runs: `simllm fit-engine`.

The same constants serve all runs, models and TP sizes. What is compared are busy times over many steps and
medians of many equal steps, not single steps: what a record says of one step is blurred by its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, log2

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ...errors import TraceError
from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.engine_profile import EngineOverhead, FittedRun
from ...hwmodels.fitted import EngineConstant
from ...hwmodels.power import PowerLimit
from ...hwmodels.step import StepModel
from .cold import is_cold
from .emulate import emulate
from .recorded_steps import RecordedStep

# Per constant the bounds that physics sets. Where the fit starts: the estimates of `EngineOverhead`.
BOUNDS = {
    "step_s": (0.0, 1e-3),
    "eager_launch_s": (1e-5, 1e-4),
    "eager_moe_layer_s": (0.0, 2e-3),
    "decode_ratio": (0.6, 1.8),
    "prefill_ratio": (0.6, 1.8),
    "moe_ratio": (0.6, 1.8),
    "mixed_decode_ratio": (1.0, 4.0),
    "small_reduce_ratio": (0.3, 2.0),
    "large_reduce_ratio": (0.5, 3.0),
}
# A relative error beyond which a cell counts linearly, not by its square: two GPUs of one host differ so.
_OUTLIER = 0.03
_SETTLED_STEPS = 3  # decodes in a row before one counts as undisturbed
_STRETCH = 3  # steps with prompts in a row that make a window, and the steps after it that repay lateness
_MIN_CELL = 20  # steps that a median needs
_LONG_PROMPT = 512  # tokens from which a prompt alone keeps the GPU busy
# What the cells weigh: the whole busy time, windows of prompts, medians of equal steps.
_WHOLE, _WINDOW, _MEDIAN = 2.0, 2.0, 0.5
_CONFIDENCE_Z = 1.96

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One recorded run: its steps, and how to price them with given constants.

    depth: steps in flight; 1 is a synchronous engine, whose scheduling `schedule_s` adds to each step.
    """

    name: str
    steps: Sequence[RecordedStep]
    model_of: Callable[[EngineOverhead], StepModel]
    graphs: CudaGraphSizes
    power: PowerLimit | None
    depth: int
    num_gpus: int
    schedule_s: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One comparison: log of predicted over measured time, and its weight."""

    kind: str
    log_ratio: float
    weight: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class EngineFit:
    """The fitted constants and how well each run's busy time comes out."""

    constants: dict[str, EngineConstant]
    runs: tuple[FittedRun, ...]


def fit_engine(runs: Sequence[EngineRun]) -> EngineFit:
    """Returns the constants that bring all runs closest, by robust least squares on relative errors.

    Raises: TraceError for a run that has nothing to compare.
    """
    for run in runs:
        if not cells(run, EngineOverhead()):
            what = "has no steps to compare: none that follow another at once, nor long prompts one by one"
            raise TraceError(run.name, None, what)
    names = list(BOUNDS)
    start = np.array([getattr(EngineOverhead(), name) for name in names])
    low, high = np.array([BOUNDS[name] for name in names]).T
    scale = np.maximum(start, 0.1 * high)

    # Shifted by one: differences are taken in steps relative to the value, which must not be 0.
    def residuals(shifted: Floats) -> Floats:
        overhead = _overhead(names, np.clip((shifted - 1) * scale, low, high))
        return np.array([cell.weight * cell.log_ratio for run in runs for cell in cells(run, overhead)])

    solution = least_squares(
        residuals, np.clip(start, low, high) / scale + 1, bounds=(low / scale + 1, high / scale + 1),
        loss="soft_l1", f_scale=_OUTLIER, diff_step=0.02, x_scale="jac", max_nfev=12,
    )  # fmt: skip
    variance = 2 * solution.cost / max(1, len(solution.fun) - len(names))
    information = solution.jac.T @ solution.jac + 1e-9 * np.eye(len(names))
    errors = np.sqrt(np.diag(np.linalg.inv(information)) * variance)
    constants = {
        name: _constant(value * unit, error * unit, BOUNDS[name])
        for name, value, error, unit in zip(names, solution.x - 1, errors, scale, strict=True)
    }
    overhead = _overhead(names, np.array([constant.value for constant in constants.values()]))
    return EngineFit(constants, tuple(_fitted_run(run, overhead) for run in runs))


def cells(run: EngineRun, overhead: EngineOverhead) -> list[Cell]:
    """Returns the comparisons of one run, always the same ones for the same record."""
    if run.depth == 1:
        return list(_prompt_medians(run, overhead))
    steps = run.steps
    handled = emulate(
        steps, run.model_of(overhead), run.graphs,
        power=run.power, depth=run.depth, launches_in_engine=run.num_gpus == 1, schedule_s=run.schedule_s,
    )  # fmt: skip
    predicted = np.diff(handled, prepend=handled[0])
    measured = np.array([step.duration_s for step in steps])
    counts = np.array([step.is_busy for step in steps]) & ~is_cold(steps)
    counts[:1] = False
    if not counts.any():
        return []
    whole = Cell("busy", _log_ratio(predicted[counts], measured[counts]), _WHOLE, int(counts.sum()))
    return [
        whole,
        *_windows(steps, predicted, measured, counts),
        *_decode_medians(steps, predicted, measured),
    ]


def _windows(
    steps: Sequence[RecordedStep], predicted: Floats, measured: Floats, counts: NDArray[np.bool_]
) -> Iterator[Cell]:
    """Yields the stretches of steps with prompts, all together, with the steps that repay their lateness."""
    inside = np.zeros(len(steps), dtype=np.bool_)
    begin = 0
    while begin < len(steps):
        end = begin
        while end < len(steps) and steps[end].chunks:
            end += 1
        if end - begin >= _STRETCH and counts[begin : end + _STRETCH - 1].all():
            inside[begin : end + _STRETCH - 1] = True
        begin = end + 1
    if inside.any():
        yield Cell("prompts", _log_ratio(predicted[inside], measured[inside]), _WINDOW, int(inside.sum()))


def _decode_medians(steps: Sequence[RecordedStep], predicted: Floats, measured: Floats) -> Iterator[Cell]:
    """Yields the medians of undisturbed decode steps, by half powers of two of their number of requests."""
    groups: defaultdict[int, list[float]] = defaultdict(list)
    for place in range(_SETTLED_STEPS, len(steps) - 1):
        around = steps[place - _SETTLED_STEPS : place + 2]
        if steps[place].is_busy and not any(step.chunks for step in around):
            groups[round(2 * log2(steps[place].num_decodes))].append(predicted[place] / measured[place])
    for _, ratios in sorted(groups.items()):
        if len(ratios) >= _MIN_CELL:
            yield Cell("decode", log(float(np.median(ratios))), _MEDIAN, len(ratios))


def _prompt_medians(run: EngineRun, overhead: EngineOverhead) -> Iterator[Cell]:
    """Yields a synchronous engine's steps of one long prompt, by their tokens and context."""
    steps = run.steps
    handled = emulate(
        steps,
        run.model_of(overhead),
        run.graphs,
        power=run.power,
        depth=1,
        launches_in_engine=run.num_gpus == 1,
        schedule_s=run.schedule_s,
    )
    groups: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for place, step in enumerate(steps):
        if step.kind == "prefill" and step.num_tokens >= _LONG_PROMPT and len(step.chunks) == 1:
            begun = handled[place - 1] if place else steps[0].scheduled_at
            begun += max(0.0, step.scheduled_at - steps[place - 1].ended_at) if place else 0.0
            took_s = handled[place] - begun + run.schedule_s
            groups[step.num_tokens, step.chunks[0].context_len // 4096].append(
                took_s / (step.ended_at - step.scheduled_at)
            )
    for _, ratios in sorted(groups.items()):
        yield Cell("prompt", log(float(np.median(ratios))), _MEDIAN, len(ratios))


def _log_ratio(predicted: Floats, measured: Floats) -> float:
    return log(float(predicted.sum()) / float(measured.sum()))


def _overhead(names: Sequence[str], values: Floats) -> EngineOverhead:
    return EngineOverhead(**{name: float(value) for name, value in zip(names, values, strict=True)})


def _constant(value: float, error: float, bounds: tuple[float, float]) -> EngineConstant:
    """Returns a constant with four significant digits, so that the same record gives the same bytes."""
    ends = np.clip((value, value - _CONFIDENCE_Z * error, value + _CONFIDENCE_Z * error), *bounds)
    value, low, high = (float(f"{end:.4g}") for end in ends)
    return EngineConstant(value=value, low=low, high=high)


def _fitted_run(run: EngineRun, overhead: EngineOverhead) -> FittedRun:
    found = cells(run, overhead)
    whole = found[0].log_ratio if run.depth > 1 else float(np.median([cell.log_ratio for cell in found]))
    return FittedRun(
        run=run.name,
        num_steps=sum(cell.num_steps for cell in found),
        busy_error=round(float(np.expm1(whole)), 4),
    )
