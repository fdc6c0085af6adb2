"""Writes the table of budgets in docs/calibrate.md from the shipped one; a test compares.

`simllm calibrate budget hwmodels/profiles/h200-sxm.samples.parquet -o calibrate/budget.csv` makes that one.
"""

from __future__ import annotations

from pathlib import Path

from simllm.calibrate.budget import BudgetRow, shipped_rows

PAGE = Path(__file__).resolve().parent / "calibrate.md"
BEGIN, END = "<!-- budgets: docs/generate_calibrate.py -->", "<!-- end of budgets -->"
HEAD = (
    "| share | points | minutes | fits | median error | p90 | the whole plan on the same points |",
    "|---|---|---|---|---|---|---|",
)


def budgets() -> str:
    """Returns the sentence about the whole plan, and a row per share of it."""
    rows = shipped_rows()
    whole = rows[-1]
    told = (
        f"The plan has {whole.num_points:,} points and takes {whole.measuring_s / 60:.0f} minutes on an H200."
    )
    return "\n".join([told, "", *HEAD, *map(_line, rows)])


def _line(row: BudgetRow) -> str:
    median, p90, whole_median, whole_p90 = (
        f"{error:.1%}".replace("%", " %") for error in (row.median, row.p90, row.whole_median, row.whole_p90)
    )
    size = f"{row.share * 100:.0f} % | {row.num_points:,} | {row.measuring_s / 60:.0f} | {row.num_fits}"
    return f"| {size} | {median} | {p90} | {whole_median}, {whole_p90} |"


def main() -> None:
    """Puts the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{budgets()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
