"""Which configuration a kernel launches with: the winner measured on this GPU, else the family's default.

Winners live in `tuned/<gpu>.json`, written by `python -m simllm.kernels.tune`; a start reads that file
instead of compiling and timing dozens of candidates. A shape that was not tuned takes the winner of the
nearest one that was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from math import log
from pathlib import Path
from typing import Any

import torch

TUNED_FOLDER = Path(__file__).parent / "tuned"
INTERPRETER_SMS = 4  # programs of a persistent grid where no GPU is (Triton's interpreter)


@dataclass(frozen=True, slots=True)
class Config:
    """Meta-parameters of one launch: tile sizes and switches, warps per CTA, stages of the pipeline.

    ctas_per_sm: programs per SM that the wrapper cuts the work into; the kernel itself does not see it.
    """

    meta: Mapping[str, int | bool]
    num_warps: int = 4
    num_stages: int = 3
    ctas_per_sm: int = 1

    def launch_options(self) -> dict[str, Any]:
        """Returns everything as keyword arguments of a Triton launch."""
        return {**self.meta, "num_warps": self.num_warps, "num_stages": self.num_stages}


@dataclass(frozen=True, slots=True)
class Winner:
    """The fastest configuration of one kernel at one shape."""

    kernel: str
    variant: str
    shape: tuple[int, ...]
    config: Config
    time_us: float


@dataclass(frozen=True, slots=True)
class TuningTable:
    """Every winner of one GPU, with the versions that it was measured under."""

    gpu: str
    torch_version: str
    triton_version: str
    winners: tuple[Winner, ...] = field(default=())

    def nearest(self, kernel: str, variant: str, shape: Sequence[int]) -> Winner | None:
        """Returns the winner at the shape closest in log-distance, or None if the kernel was not tuned."""
        fitting = [winner for winner in self.winners if (winner.kernel, winner.variant) == (kernel, variant)]
        return min(fitting, key=lambda winner: _distance(winner.shape, shape), default=None)


def _distance(left: Sequence[int], right: Sequence[int]) -> float:
    return sum(abs(log(a / b)) for a, b in zip(left, right, strict=True))


def gpu_name(device: torch.device) -> str:
    """Returns the name that tuning files go by: `nvidia-h200`, or `interpreter` on a CPU."""
    if device.type != "cuda":
        return "interpreter"
    return torch.cuda.get_device_name(device).lower().replace(" ", "-")


@lru_cache(maxsize=8)
def num_sms(device: torch.device) -> int:
    """Returns the streaming multiprocessors of a device: the size of a persistent grid."""
    if device.type != "cuda":
        return INTERPRETER_SMS
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache(maxsize=8)
def load_table(gpu: str, folder: Path = TUNED_FOLDER) -> TuningTable | None:
    """Returns the tuning table of a GPU, or None if nobody tuned it yet."""
    path = folder / f"{gpu}.json"
    if not path.exists():
        return None
    raw = json.loads(path.read_text())
    winners = tuple(
        Winner(row["kernel"], row["variant"], tuple(row["shape"]), Config(**row["config"]), row["time_us"])
        for row in raw["winners"]
    )
    return TuningTable(raw["gpu"], raw["torch_version"], raw["triton_version"], winners)


def save_table(table: TuningTable, folder: Path = TUNED_FOLDER) -> Path:
    """Writes the table as JSON with one winner a line, sorted, so that a change reads well in a diff."""
    rows = sorted((asdict(winner) for winner in table.winners), key=_order)
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    head = {key: getattr(table, key) for key in ("gpu", "torch_version", "triton_version")}
    text = json.dumps(head, indent=2)[:-2] + f',\n  "winners": [\n{lines}\n  ]\n}}\n'
    folder.mkdir(exist_ok=True)
    path = folder / f"{table.gpu}.json"
    path.write_text(text)
    load_table.cache_clear()
    tuned_winner.cache_clear()
    return path


def _order(row: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    return row["kernel"], row["variant"], tuple(row["shape"])


@lru_cache(maxsize=4096)
def tuned_winner(kernel: str, variant: str, shape: tuple[int, ...], device: torch.device) -> Winner | None:
    """Returns the winner at the nearest measured shape, or None if this GPU has none."""
    table = load_table(gpu_name(device))
    return None if table is None else table.nearest(kernel, variant, shape)


def tuned_config(kernel: str, variant: str, shape: tuple[int, ...], device: torch.device) -> Config | None:
    """Returns the measured configuration for a launch, or None if this GPU has none."""
    winner = tuned_winner(kernel, variant, shape, device)
    return None if winner is None else winner.config
