"""Predicted against measured step times, class by class, from an engine's own record of its steps.

Each recorded step is priced as it was composed, so that errors of the flow don't enter: this separates a
bias of the cost model from one of the scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.step import DecodeGroup, StepModel, StepShape
from ...units import US
from .cold import is_cold
from .recorded_steps import RecordedStep

CLASSES = ("decode", "prefill", "mixed")


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """Steps of one class: their number, their measured time in all [s], and predicted / measured - 1.

    Of single classes only the steps whose duration is their own (see `PricedStep`) count, of all steps
    together every one. error: of the summed times. median_error: of single steps. num_cold: steps
    left out, on both sides.
    """

    num_steps: int
    measured_s: float
    error: float
    median_error: float
    num_cold: int


class PricedStep(NamedTuple):
    """A recorded step and what the step model says that it takes [s].

    is_fair: its measured duration is its own. The engine's thread hands out a step's output only when it has
    launched the next one, which takes the longer the less of it lies in CUDA graphs; so the time between
    two outputs is a step's own only if it is launched as the one before it and the one after it are.
    """

    step: RecordedStep
    predicted_s: float
    is_fair: bool


def price(steps: Sequence[RecordedStep], model: StepModel, graphs: CudaGraphSizes) -> list[PricedStep]:
    """Returns the steps whose durations are known, each with its predicted one.

    Known are those that began while the one before ran.
    """
    launches = [_launch(step, graphs) for step in steps]
    priced = []
    for place, step in enumerate(steps):
        if step.is_busy:
            neighbours = [launches[near] for near in (place - 1, place + 1) if 0 <= near < len(steps)]
            is_fair = neighbours == [launches[place]] * 2
            priced.append(PricedStep(step, model.predict(shape_of(step, graphs)).duration_s, is_fair))
    return priced


def _launch(step: RecordedStep, graphs: CudaGraphSizes) -> tuple[bool, bool]:
    """Returns how a step is launched: with prompts, whose attention lies in no graph; in graphs else."""
    return bool(step.chunks), graphs.captures(step.num_tokens)


def errors_by_class(priced: Sequence[PricedStep]) -> dict[str, ClassErrors]:
    """Returns the errors of each class of steps that occurs, and of `all`; cold steps are left out."""
    found = {}
    kept = list(zip(priced, ~is_cold([item.step for item in priced]), strict=True))
    for kind in (*CLASSES, "all"):
        members = [
            (item, is_warm)
            for item, is_warm in kept
            if kind == "all" or (kind == item.step.kind and item.is_fair)
        ]
        warm = [item for item, is_warm in members if is_warm]
        if warm:
            found[kind] = _errors(warm, len(members) - len(warm))
    return found


def shape_of(step: RecordedStep, graphs: CudaGraphSizes) -> StepShape:
    """Returns the counts that price a recorded step.

    SIMPLIFIED: the longest context is not recorded, the mean stands for it; effect: a batch whose longest
    context dwarfs the others is priced too low.
    """
    decodes: tuple[DecodeGroup, ...] = ()
    if step.num_decodes:
        mean_context = -(-step.sum_context // step.num_decodes)
        decodes = (DecodeGroup(1, step.num_decodes, step.sum_context, mean_context),)
    return StepShape(
        chunks=step.chunks,
        decodes=decodes,
        num_padded_tokens=graphs.pad(step.num_tokens),
        num_sampled=step.num_decodes + len(step.chunks),
        uses_cuda_graph=graphs.captures(step.num_tokens),
    )


def _errors(priced: Sequence[PricedStep], num_cold: int) -> ClassErrors:
    measured = np.array([item.step.duration_s for item in priced])
    predicted = np.array([item.predicted_s for item in priced])
    median = float(np.median(predicted / np.maximum(measured, US)))  # outputs can share an instant
    return ClassErrors(
        num_steps=len(priced),
        measured_s=float(measured.sum()),
        error=float(predicted.sum() / measured.sum() - 1),
        median_error=median - 1,
        num_cold=num_cold,
    )
