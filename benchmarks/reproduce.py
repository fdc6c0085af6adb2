"""Simulates what others have published and writes docs/reproductions.yaml and the page beside it.

    python benchmarks/reproduce.py            all rows
    python benchmarks/reproduce.py fastgen    rows whose id begins so; the others stay as they were

No constant is tuned for a row. A row agrees when simllm's figure lies within the published range +-25 %.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # so that rows are found from any folder

from reproductions.row import TOLERANCE, Row  # noqa: E402

from simllm.sim.outcome.files import write_text_whole  # noqa: E402

KEPT = ROOT.parent / "docs" / "reproductions.yaml"
PAGE = KEPT.with_suffix(".md")
NOT_ROWS = ("lengths", "row", "runs")
FIELDS = ("id", "claim", "source", "model", "device", "engine", "workload", "metric")


def all_rows() -> list[Row]:
    """Returns the rows of all modules, in the order of the modules' names."""
    names = sorted(path.stem for path in (ROOT / "reproductions").glob("*.py"))
    modules = [importlib.import_module(f"reproductions.{name}") for name in names if name not in NOT_ROWS]
    return [row for module in modules for row in module.ROWS]


def reproduced(rows: Sequence[Row], chosen: Sequence[str], kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows as plain data, the chosen ones simulated anew, the others with what was kept."""
    told = []
    for row in rows:
        is_chosen = not chosen or any(row.id.startswith(prefix) for prefix in chosen)
        entry: dict[str, Any] = {field: getattr(row, field) for field in FIELDS}
        entry |= {"published_low": row.published[0], "published_high": row.published[1]}
        before = kept.get(row.id, {})
        if is_chosen and row.is_runnable:
            ours = row.measure()
            entry |= {"ours": float(f"{ours:.4g}"), "verdict": row.verdict(ours), "date": date.today()}
            print(f"{row.id}: {entry['ours']:g} against {row.published}: {entry['verdict']}", flush=True)
        else:
            entry |= {field: before.get(field) for field in ("ours", "verdict", "date")}
        told.append({**entry, "explanation": row.explanation})
    return told


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the document that shows the rows."""
    agreeing = sum(row["verdict"] == "agrees" for row in rows)
    lines = [
        "# Reproductions",
        "",
        "Figures that others have published, and what simllm makes of the same system under the same",
        "load. `make reproductions` simulates all of them and writes this page and",
        "`docs/reproductions.yaml`. A row agrees when simllm's figure lies within the published range,",
        f"widened by {TOLERANCE:.0%} at both ends. No constant is tuned for a row.",
        "",
        f"{agreeing} of {len(rows)} rows agree.",
        "",
        "| row | system | metric | published | simllm | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["published_low"], row["published_high"]
        published = f"{low:,g}" if low == high else f"{low:,g} .. {high:,g}"
        ours = "" if row["ours"] is None else f"{row['ours']:,g}"
        system = f"{row['engine']}: {row['model']} on {row['device']}"
        cells = (row["id"], system, row["metric"], published, ours, row["verdict"] or "not run")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## What the rows are", ""]
    for row in rows:
        note = f" {row['explanation']}" if row["explanation"] else ""
        lines.append(f"- **{row['id']}**: {row['claim']}. {row['workload']}. Source: {row['source']}.{note}")
    return "\n".join(lines) + "\n"


def main(chosen: Sequence[str]) -> None:
    """Simulates the chosen rows and writes both files."""
    rows = all_rows()
    unknown = [prefix for prefix in chosen if not any(row.id.startswith(prefix) for row in rows)]
    if unknown:
        raise SystemExit(f"no row's id begins with {unknown[0]!r}")
    before = yaml.safe_load(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    told = reproduced(rows, chosen, {row["id"]: row for row in before})
    write_text_whole(KEPT, yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110))
    write_text_whole(PAGE, page(told))


if __name__ == "__main__":
    main(sys.argv[1:])
