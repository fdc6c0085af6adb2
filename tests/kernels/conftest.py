"""Kernel tests: in Triton's interpreter without a GPU, on it under `-m gpu`.

Every output starts out poisoned, as NaN or the largest integer, so that an element which no program writes
fails the comparison. On the CPU numbers are the same in every run; on a GPU they are fresh, from a seed that
a failing test shows and ${SIMLLM_KERNEL_SEED} repeats.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Callable
from typing import Any

import pytest

MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
HAS_GPU = False
if not MISSING:
    import torch

    HAS_GPU = torch.cuda.is_available()
    if not HAS_GPU:
        os.environ["TRITON_INTERPRET"] = (
            "1"  # read when a kernel is defined, so before any family is imported
        )


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    """One seed for all that a test draws."""
    if MISSING:
        return
    is_fresh = request.node.get_closest_marker("gpu") is not None
    seed = int(os.environ.get("SIMLLM_KERNEL_SEED") or (secrets.randbits(31) if is_fresh else 0))
    print(f"SIMLLM_KERNEL_SEED={seed}")
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrapper allocates without a value holds the worst one instead of what lay there."""
    if MISSING:
        return
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


def poisoned(allocate: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `allocate` with every element NaN, or the largest integer, where kernels or tests call it."""

    def allocate_poisoned(*args: Any, **options: Any) -> Any:
        tensor = allocate(*args, **options)
        if "kernels" not in sys._getframe(1).f_globals["__name__"].split("."):
            return tensor
        is_float = tensor.dtype.is_floating_point
        return tensor.fill_(float("nan") if is_float else torch.iinfo(tensor.dtype).max)

    return allocate_poisoned


@pytest.fixture
def gpu() -> str:
    """The device of the tests that need a GPU."""
    if not HAS_GPU:
        pytest.skip("needs a CUDA GPU")
    return "cuda"
