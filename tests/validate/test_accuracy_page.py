"""docs/accuracy.md: the page that `make accuracy` writes, over runs of our own making."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import simllm

from .handmade import write_bench


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(simllm.__file__).parent / "docs" / "generate_accuracy.py"
    spec = importlib.util.spec_from_file_location("generate_accuracy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_run_its_goals_and_what_is_refused(tmp_path: Path, script: ModuleType) -> None:
    folder = tmp_path / "tiny-tp1"
    folder.mkdir()
    files = [
        write_bench(folder, "poisson-1.json.gz"),
        write_bench(folder, "poisson-1-again.json.gz", ttfts=[1.1, 0.55, 0.33]),
        write_bench(folder, "dp2.json.gz", engine={"data_parallel_size": 2}),
    ]
    page = script.page(script.validate_all(files))
    assert "| tiny-tp1/poisson-1 | 3 |" in page
    assert "2 of 3 recorded runs" in page
    assert "- tiny-tp1/dp2: engine.data_parallel_size: data parallelism inside one engine is" in page
    assert "Real vllm 0.22.1 on NVIDIA H200, 2026-11" in page
    # The repeat's TTFT is 10 % longer: that is the floor.
    (row,) = [line for line in page.splitlines() if "| ttft_mean |" in line]
    assert row.endswith("| 10.0% |")
    assert "sha256" in page


def test_the_readme_shows_no_repeats(tmp_path: Path, script: ModuleType) -> None:
    files = [write_bench(tmp_path, "a.json.gz"), write_bench(tmp_path, "a-again.json.gz")]
    part = script.readme_part(script.validate_all(files))
    assert "/a | 3 |" in part
    assert "again" not in part
