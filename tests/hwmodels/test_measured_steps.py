"""Datasheet predictions against single steps of a real engine, with nothing fitted to them.

Reads runs of vLLM 0.22.1 on an H200 below the folder in `SIMLLM_MEASURED`: lone prefill chunks from a grid
on a synchronous engine, decodes from closed-loop runs with async scheduling.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.device import load_device
from simllm.hwmodels.engine_profile import EngineOverhead
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape

# Without async scheduling, inputs and outputs of a step are handled while the GPU waits.
SYNCHRONOUS = EngineOverhead(step_s=1.0e-3)
CELL_TOKENS = 256  # mean contexts that differ by less are one cell

Cell = tuple[int, int, int]
"""Query length of a lone chunk (0 for decodes), number of decodes, mean context before the step."""


def step_rows(run: str) -> list[dict[str, str]]:
    folder = os.environ.get("SIMLLM_MEASURED")
    if folder is None:
        pytest.skip("SIMLLM_MEASURED names no folder of measured runs")
    path = Path(folder) / "h200-vllm" / f"{run}.steps.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt") as lines:
        return list(csv.DictReader(lines))


def medians(cells: dict[Cell, list[float]], *, at_least: int) -> dict[Cell, float]:
    return {cell: median(seconds) for cell, seconds in cells.items() if len(seconds) >= at_least}


def lone_chunks(rows: list[dict[str, str]]) -> dict[Cell, float]:
    cells = defaultdict(list)
    for row in rows:
        chunks = row["prefill_chunks"]
        if chunks and ";" not in chunks and row["num_decodes"] == "0":
            query, context = map(int, chunks.split(":"))
            seconds = (int(row["output_done_us"]) - int(row["schedule_start_us"])) * 1e-6
            cells[query, 0, context - query].append(seconds)
    return medians(cells, at_least=3)


def pure_decodes(rows: list[dict[str, str]]) -> dict[Cell, float]:
    """Returns decodes between decodes: a step lasts from its predecessor's output to its own."""
    cells = defaultdict(list)
    for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
        decodes = int(row["num_decodes"])
        if decodes and not any(step["prefill_chunks"] for step in (before, row, after)):
            mean = int(row["sum_decode_context_tokens"]) / decodes
            seconds = (int(row["output_done_us"]) - int(before["output_done_us"])) * 1e-6
            cells[0, decodes, round(mean / CELL_TOKENS) * CELL_TOKENS].append(seconds)
    return medians(cells, at_least=20)


def predicted(model: RooflineStepModel, query: int, decodes: int, context: int) -> float:
    num_tokens = query or decodes
    shape = StepShape(
        chunks=(Chunk(query, context),) if query else (),
        decodes=(DecodeGroup(1, decodes, decodes * context, context),) if decodes else (),
        num_padded_tokens=model.cuda_graph.pad(num_tokens),
        num_sampled=decodes or 1,
        uses_cuda_graph=model.cuda_graph.captures(num_tokens),
    )
    return model.predict(shape).duration_s


def errors_of(cells: dict[Cell, float], model: RooflineStepModel) -> list[float]:
    return [abs(predicted(model, *cell) / seconds - 1) for cell, seconds in cells.items()]


def h200_model(
    name: str, *, tp: int = 1, dtype: str = "bf16", overhead: EngineOverhead | None = None
) -> RooflineStepModel:
    return RooflineStepModel(
        load_model(name),
        load_device("h200-sxm"),
        weight_dtype=dtype,
        activation_dtype="bf16",
        kv_dtype=dtype,
        parallel=ParallelSpec(tp=tp),
        cuda_graph=CudaGraphSizes(vllm_capture_sizes(128)),
        overhead=overhead,
    )


@pytest.mark.parametrize(
    "name, typical", [("llama-3.1-8b", 0.06), ("qwen3-32b", 0.06), ("qwen3-30b-a3b", 0.20)]
)
def test_prefill_chunks_are_predicted_from_the_datasheet(name, typical):
    cells = lone_chunks(step_rows(f"{name}-tp1/step-grid"))
    errors = errors_of(cells, h200_model(name, overhead=SYNCHRONOUS))
    assert len(errors) >= 10
    assert median(errors) < typical
    assert max(errors) < 0.25


@pytest.mark.parametrize(
    "run, name, tp, dtype",
    [
        ("llama-3.1-8b-tp1/closed-1", "llama-3.1-8b", 1, "bf16"),
        ("llama-3.1-8b-tp1/closed-16", "llama-3.1-8b", 1, "bf16"),
        ("llama-3.1-8b-tp1/closed-64-again", "llama-3.1-8b", 1, "bf16"),
        ("llama-3.1-8b-tp1/closed-256", "llama-3.1-8b", 1, "bf16"),
        ("llama-3.1-8b-tp1-fp8/closed-1", "llama-3.1-8b", 1, "fp8"),
        ("llama-3.1-8b-tp2/closed-64", "llama-3.1-8b", 2, "bf16"),
        ("qwen3-32b-tp1/closed-16", "qwen3-32b", 1, "bf16"),
        ("qwen3-32b-tp2/closed-64", "qwen3-32b", 2, "bf16"),
        ("qwen3-30b-a3b-tp1/closed-32", "qwen3-30b-a3b", 1, "bf16"),
        ("qwen3-30b-a3b-tp1/poisson-8", "qwen3-30b-a3b", 1, "bf16"),
        ("qwen2.5-vl-7b-tp1/closed-16", "qwen2.5-vl-7b", 1, "bf16"),
    ],
)
def test_decode_steps_are_predicted_from_the_datasheet(run, name, tp, dtype):
    errors = errors_of(pure_decodes(step_rows(run)), h200_model(name, tp=tp, dtype=dtype))
    assert errors
    assert median(errors) < 0.08
    assert max(errors) < 0.15
