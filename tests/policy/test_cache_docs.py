"""The page about prefix caches says what the caches do now."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import simllm

DOCS = Path(simllm.__file__).parent / "docs"


@pytest.mark.skipif(not os.environ.get("SIMLLM_TRACES"), reason="SIMLLM_TRACES names no folder of traces")
def test_the_page_shows_the_hit_rates_of_now() -> None:
    script = DOCS / "generate_kv_cache.py"
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (DOCS / "kv-cache.md").read_text(encoding="utf-8")
    assert module.row(module.NUM_BLOCKS[0]) in page, "run docs/generate_kv_cache.py"


@pytest.mark.parametrize("kind", ["auto", "hash", "radix", "trtllm", "ksana"])
def test_the_page_names_every_kind(kind: str) -> None:
    page = (DOCS / "kv-cache.md").read_text(encoding="utf-8")
    assert kind in page.split("```")[1]
