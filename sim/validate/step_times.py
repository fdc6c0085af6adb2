"""Predicted against measured step times, class by class, from an engine's own record of its steps.

Each recorded step is priced as it was composed, so that errors of the flow don't enter: this separates a
bias of the cost model from one of the scheduler.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import TraceError
from ...hwmodels.cudagraph import CudaGraphSizes
from ...hwmodels.step import Chunk, DecodeGroup, StepModel, StepShape
from ...units import US

CLASSES = ("decode", "prefill", "mixed")
COLUMNS = (
    "schedule_start_us",
    "output_done_us",
    "num_decodes",
    "sum_decode_context_tokens",
    "prefill_chunks",
)
COLD_FACTOR = 20.0


class RecordedStep(NamedTuple):
    """One step as the engine recorded it; is_busy: it was scheduled while the one before ran."""

    duration_s: float
    is_busy: bool
    num_decodes: int
    sum_context: int
    chunks: tuple[Chunk, ...]

    @property
    def kind(self) -> str:
        """decode, prefill or mixed."""
        if not self.chunks:
            return "decode"
        return "mixed" if self.num_decodes else "prefill"


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """Steps of one class: their number, their measured time in all [s], and predicted / measured - 1.

    num_cold: steps left out, on both sides, for taking over 20 times the class's median.
    """

    num_steps: int
    measured_s: float
    error: float
    num_cold: int


def read_steps(path: Path) -> list[RecordedStep]:
    """Returns the steps that held anything; each lasts from its start, or the end of the one before it.

    Raises: TraceError for a missing column or a malformed row, with its line.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    steps: list[RecordedStep] = []
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise TraceError(path, 1, f"has no column {missing[0]!r}")
        last_done_us = -math.inf
        for line, row in enumerate(rows, 2):
            try:
                started_us, done_us = float(row["schedule_start_us"]), float(row["output_done_us"])
                step = _step(row, (done_us - max(started_us, last_done_us)) * US, started_us < last_done_us)
            except ValueError as error:
                raise TraceError(path, line, f"is malformed: {error}") from error
            if step.num_decodes or step.chunks:
                steps.append(step)
                last_done_us = done_us
    return steps


def read_busy_steps(path: Path) -> list[RecordedStep]:
    """Returns the steps that began while the one before ran, so that their durations are known.

    Raises: TraceError as `read_steps` does.
    """
    return [step for step in read_steps(path) if step.is_busy]


def errors_by_class(
    steps: list[RecordedStep], model: StepModel, graphs: CudaGraphSizes
) -> dict[str, ClassErrors]:
    """Returns the errors of the summed step times of each class that occurs, and of `all` steps.

    Sums, because the engine's thread may hand out one step's output late and the next one's early.
    """
    found = {}
    kept: list[RecordedStep] = []
    for kind in CLASSES:
        members = [step for step in steps if step.kind == kind]
        warm = list(_without_cold(members))
        kept += warm
        if warm:
            found[kind] = _errors(warm, len(members) - len(warm), model, graphs)
    if kept:
        found["all"] = _errors(kept, len(steps) - len(kept), model, graphs)
    return found


def shape_of(step: RecordedStep, graphs: CudaGraphSizes) -> StepShape:
    """Returns the counts that price a recorded step.

    SIMPLIFIED: the longest context is not recorded, the mean stands for it; effect: a batch whose longest
    context dwarfs the others is priced too low.
    """
    num_tokens = step.num_decodes + sum(chunk.query_len for chunk in step.chunks)
    decodes: tuple[DecodeGroup, ...] = ()
    if step.num_decodes:
        mean_context = -(-step.sum_context // step.num_decodes)
        decodes = (DecodeGroup(1, step.num_decodes, step.sum_context, mean_context),)
    return StepShape(
        chunks=step.chunks,
        decodes=decodes,
        num_padded_tokens=graphs.pad(num_tokens),
        num_sampled=step.num_decodes + len(step.chunks),
        uses_cuda_graph=graphs.captures(num_tokens),
    )


def _step(row: dict[str, str], duration_s: float, is_busy: bool) -> RecordedStep:
    chunks = []
    for text in filter(None, row["prefill_chunks"].split(";")):
        tokens, context = (int(part) for part in text.split(":"))
        chunks.append(Chunk(tokens, context - tokens))  # contexts include the step's own tokens
    num_decodes, sum_context = int(row["num_decodes"]), int(row["sum_decode_context_tokens"])
    return RecordedStep(duration_s, is_busy, num_decodes, sum_context, tuple(chunks))


def _without_cold(steps: list[RecordedStep]) -> Iterator[RecordedStep]:
    durations = sorted(step.duration_s for step in steps)
    limit_s = COLD_FACTOR * durations[len(durations) // 2] if durations else 0.0
    return (step for step in steps if step.duration_s <= limit_s)


def _errors(
    steps: list[RecordedStep], num_cold: int, model: StepModel, graphs: CudaGraphSizes
) -> ClassErrors:
    measured_s = sum(step.duration_s for step in steps)
    predicted_s = sum(model.predict(shape_of(step, graphs)).duration_s for step in steps)
    return ClassErrors(len(steps), measured_s, predicted_s / measured_s - 1, num_cold)
