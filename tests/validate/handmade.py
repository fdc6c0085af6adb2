"""Recorded runs of our own making, in the format of the shared ones: a result file and its steps."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ENGINE: dict[str, Any] = {
    "name": "vllm",
    "version": "0.22.1",
    "gpu": "NVIDIA H200",
    "model": "meta-llama/Llama-3.1-8B",
    "dtype": "bfloat16",
    "num_gpu_blocks": 1000,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 128,
    "max_model_len": 8192,
}
# Three answers: TPOT (2 - 1) / (11 - 1) = 0.1 s, (1.5 - 0.5) / (6 - 1) = 0.2 s, and none for a single token.
BENCH: dict[str, Any] = {
    "date": "2026-11-21",
    "duration": 4.0,
    "arrivals": "poisson",
    "output_throughput": 4.5,
    "request_throughput": 0.75,
    "input_lens": [100, 200, 50],
    "output_lens": [11, 6, 1],
    "start_times": [0.0, 1.0, 2.0],
    "ttfts": [1.0, 0.5, 0.3],
    "latencies": [2.0, 1.5, 0.3],
    "itls": [[0.1] * 10, [0.2] * 5, []],
    "cached_tokens": [0, 16, 0],
}
NO_CHANGES: Mapping[str, Any] = MappingProxyType({})
STEP_HEAD = (
    "schedule_start_us,output_done_us,num_decodes,sum_decode_context_tokens,prefill_chunks,"
    "num_waiting,num_preempted\n"
)


def write_bench(
    folder: Path, name: str = "run.json", engine: Mapping[str, Any] | None = NO_CHANGES, **changes: Any
) -> Path:
    """Writes a result file with some keys changed, or left out if None; `engine` changes its block."""
    path = folder / name
    result = {**BENCH, "engine": None if engine is None else {**ENGINE, **engine}, **changes}
    text = json.dumps({key: value for key, value in result.items() if value is not None})
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_steps(folder: Path, rows: Sequence[str], name: str = "run.steps.csv") -> Path:
    """Writes a record of steps, each `start_us,done_us,decodes,context,chunks` and perhaps queue lengths."""
    path = folder / name
    full = (row if row.count(",") > 4 else f"{row},0,0" for row in rows)
    path.write_text(STEP_HEAD + "".join(f"{row}\n" for row in full), encoding="utf-8")
    return path
