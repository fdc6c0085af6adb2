"""The page on tiers shows what its scenario gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import simllm

DOCS = Path(simllm.__file__).parent / "docs"


def script(name: str) -> ModuleType:
    """The script of that name beside the pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["HBM alone", "host and a store of 1 TiB (as shipped)"])
def test_the_figures_are_current(name: str) -> None:
    tables = script("generate_kv_tiers")
    cells = tables._cells(tables._summary(tables.VARIANTS[name]))
    row = f"| {name} | {' | '.join(cells)} |"
    assert row in tables.PAGE.read_text(encoding="utf-8"), "run `make generated`"


@pytest.mark.parametrize("name", ["as shipped: two copies, rebuilt", "one copy"])
def test_the_figures_of_lost_nodes_are_current(name: str) -> None:
    table = script("generate_store_loss")
    row = table.row(name, table.VARIANTS[name])
    assert row in table.PAGE.read_text(encoding="utf-8"), "run `make generated`"
