"""The document of the kernels: its tables are what the benchmarks printed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import simllm

ROOT = Path(simllm.__file__).parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/generate_kernels.py as a module."""
    spec = importlib.util.spec_from_file_location("generate_kernels", ROOT / "docs" / "generate_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_that_the_benchmarks_printed(script: ModuleType) -> None:
    shown = script.DOCUMENT.read_text(encoding="utf-8")
    assert shown == script.current(), "run `python docs/generate_kernels.py`"


def test_a_row_of_the_table_is_read_by_its_columns(script: ModuleType) -> None:
    figures = "    176.6      177.0   1.00    778.4   0.57    79%   12%  156     0 229408   12%"
    (row,) = script.measured(f"{'gemm bf16':26} {'4096x4096x4096':30} {figures}")["gemm bf16"]
    assert row == (176.6, 1.0, 778.4, 0.57, "4096x4096x4096")


def test_every_goal_has_a_figure(script: ModuleType) -> None:
    lines = list(script.goal_lines(script.KERNELS.read_text(encoding="utf-8")))[2:]
    assert len(lines) == 12
    assert all(float(figure) > 0 for line in lines for figure in line.split("|")[-2].split(","))
