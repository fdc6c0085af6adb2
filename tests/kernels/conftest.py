"""Kernel tests: in Triton's interpreter without a GPU, on it under `-m gpu`."""

import importlib.util
import os

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
def _seed() -> None:
    """A failure repeats: every test draws its numbers from one seed."""
    if not MISSING:
        torch.manual_seed(0)


@pytest.fixture
def gpu() -> str:
    """The device of the tests that need a GPU."""
    if not HAS_GPU:
        pytest.skip("needs a CUDA GPU")
    return "cuda"
