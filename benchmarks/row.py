"""A row of the kernel benchmark: our launch and another over the same random inputs, and its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from simllm.hwmodels import ops

BF16, FP8, INT8 = torch.bfloat16, torch.float8_e4m3fn, torch.int8

Launch = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    other: what ours is measured against, torch's launch or our own unfused ones; None if there is none.
    kernel: the kernel to look into where a launch starts several and the first is not the one that counts.
    """

    name: str
    shape: str
    ours: Launch
    other: Launch | None
    work: ops.Op
    kernel: Any = None
