"""docs/metrics.md names every key and column, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from simllm.sim.outcome.files import RUN_FILES
from simllm.sim.outcome.results import Result

from .handmade import TERMS

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


def _first_cells(heading: str) -> list[str]:
    """Returns the names in the first column of the table under a heading."""
    _, _, section = ("\n" + METRICS.read_text(encoding="utf-8")).partition(f"\n{heading}\n")
    rows = re.findall(r"^\| (`.+?`) \|", section.partition("\n## ")[0], flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w[\w.]*)`", row)]


def test_the_columns_of_each_table_are_documented_in_their_order(result: Result) -> None:
    assert _first_cells("## requests") == list(result.requests)
    assert _first_cells("## steps") + [f"{term}_ms" for term in TERMS] == list(result.steps)
    assert _first_cells("## kv") == list(result.kv)


def test_the_keys_of_the_summary_are_documented(result: Result) -> None:
    latencies = _first_cells("## Latencies, and how they compare with other tools")
    statistics = ("mean", "median", "std", "p50", "p90", "p95", "p99")
    scalars = {f"{statistic}_{latency}" for statistic in statistics for latency in latencies}
    assert {*_first_cells("## summary.json"), *scalars} == set(result.summary())


def test_the_files_of_a_run_are_documented() -> None:
    assert set(_first_cells("# Metrics: what the output says, and by which formula")) == set(RUN_FILES)
