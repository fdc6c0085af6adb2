"""The rows of docs/reproductions.yaml: complete, judged by the rule, and what the code gives today."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import simllm

ROOT = Path(simllm.__file__).parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        module = _load(ROOT / "benchmarks" / "reproduce.py")
        module.all_rows()
    return module


@pytest.fixture(scope="module")
def kept(script: ModuleType) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load(script.KEPT.read_text(encoding="utf-8"))
    return rows


def test_every_row_of_the_code_is_kept_with_its_published_range(
    script: ModuleType, kept: list[dict[str, Any]]
) -> None:
    published = {row.id: row.published for row in script.all_rows()}
    assert {row["id"]: (row["published_low"], row["published_high"]) for row in kept} == published, (
        "run `make reproductions`"
    )


def test_no_two_rows_have_the_same_id(script: ModuleType) -> None:
    ids = [row.id for row in script.all_rows()]
    assert sorted(set(ids)) == sorted(ids)


def test_rows_whose_data_is_there_have_been_run(kept: list[dict[str, Any]]) -> None:
    missing = [row["id"] for row in kept if row["ours"] is None]
    assert missing == [], "run `make reproductions` with SIMLLM_TRACES"


def test_a_capped_exponential_draws_again_what_is_too_long(script: ModuleType) -> None:
    # Nearly flat up to 32, where it would have a mean of 16.5. Short ones are a little likelier: by the slope
    # 1 / 128 over a variance of 32^2 / 12, that is 0.67 less; and 0 counts as 1.
    lengths = importlib.import_module("reproductions.lengths").capped_exponential(128, 32)
    total = sum(lengths["weights"])
    mean = sum(v * w for v, w in zip(lengths["values_tokens"], lengths["weights"], strict=True)) / total
    assert max(lengths["values_tokens"]) == 32
    assert mean == pytest.approx(16.5 - 32**2 / 12 / 128, abs=0.4)


def test_a_lognormal_has_the_percentiles_that_it_was_made_from(script: ModuleType) -> None:
    # sigma = ln(300 / 100) / 1.2816
    lengths = importlib.import_module("reproductions.lengths").lognormal(100, 300, 1000)
    assert (lengths["median_tokens"], lengths["sigma"]) == (100, pytest.approx(0.8572, abs=1e-4))


def test_every_row_says_where_it_comes_from_and_what_it_is(kept: list[dict[str, Any]]) -> None:
    texts = ("id", "claim", "source", "model", "device", "engine", "workload", "metric")
    assert [row["id"] for row in kept if not all(row[field] for field in texts)] == []


def test_verdicts_follow_the_rule(script: ModuleType, kept: list[dict[str, Any]]) -> None:
    # Within the published range, a quarter wider at both ends.
    for row in kept:
        if row["ours"] is not None:
            agrees = row["published_low"] * 0.75 <= row["ours"] <= row["published_high"] * 1.25
            assert row["verdict"] == ("agrees" if agrees else "disagrees"), row["id"]


def test_a_disagreement_is_explained(kept: list[dict[str, Any]]) -> None:
    assert [row["id"] for row in kept if row["verdict"] == "disagrees" and not row["explanation"]] == []


def test_the_page_shows_what_is_kept(script: ModuleType, kept: list[dict[str, Any]]) -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.page(kept), "run `make reproductions`"


def test_a_row_measured_now_gives_the_figure_that_is_kept(
    script: ModuleType, kept: list[dict[str, Any]]
) -> None:
    row = next(row for row in script.all_rows() if row.id == "vllm-watermark-0.02-preemptions")
    ours = next(entry["ours"] for entry in kept if entry["id"] == row.id)
    assert float(f"{row.measure():.4g}") == pytest.approx(ours, rel=0.05)
