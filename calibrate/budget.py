"""What a shorter budget costs: errors of fits to the first points of the plan, on points that no fit saw.

Every fifth point of the plan is kept aside; fits see a share of the others, in the plan's order, as a sweep
that ends there would have measured them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_point import PROBES
from ..units import US
from .fit import Array, Key, by_key, fit_samples, predict_s, round_significant
from .samples import Sample

SHARES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
KEPT_ASIDE = 5  # every fifth point
TABLE = "budget.csv"
_COMMENT = "# Made by `simllm calibrate budget hwmodels/profiles/h200-sxm.samples.parquet -o budget.csv`."
Errors = Mapping[Key, Array]
"""|predicted / measured - 1| of points that no fit saw, by op, implementation and dtype."""


class BudgetRow(NamedTuple):
    """One share of the plan. num_points, measuring_s: of its length. num_fits: that have samples enough.

    median, p90: errors of these fits on points kept aside. whole_median, whole_p90: of fits to the whole
    plan, on the same points.
    """

    share: float
    num_points: int
    measuring_s: int
    num_fits: int
    median: float
    p90: float
    whole_median: float
    whole_p90: float


def budget_rows(
    samples: Sequence[Sample], device: DeviceSpec, shares: Sequence[float] = SHARES
) -> list[BudgetRow]:
    """Returns a row per share of samples of a whole plan, in its order.

    Raises: CalibrationError if a share fits nothing.
    """
    known = [sample for sample in samples if sample.point.op not in PROBES]
    unseen = known[KEPT_ASIDE - 1 :: KEPT_ASIDE]
    seen = [sample for place, sample in enumerate(known, 1) if place % KEPT_ASIDE]
    whole, pace_s = _errors(seen, unseen, device), _seconds_per_point(known)
    rows = []
    for share in shares:
        errors = _errors(seen[: round(share * len(seen))], unseen, device)
        if not errors:
            raise CalibrationError(f"{share:.0%} of {len(known)} samples are too few to fit anything")
        num_points = round(share * len(samples))
        here, there = _median_and_p90(errors, errors), _median_and_p90(whole, errors)
        rows.append(BudgetRow(share, num_points, round(num_points * pace_s), len(errors), *here, *there))
    return rows


def _median_and_p90(errors: Errors, wanted: Iterable[Key]) -> tuple[float, float]:
    pooled = np.concatenate([errors[key] for key in sorted(wanted)])
    median, p90 = np.quantile(pooled, (0.5, 0.9))
    return round_significant(float(median)), round_significant(float(p90))


def _errors(seen: Sequence[Sample], unseen: Sequence[Sample], device: DeviceSpec) -> Errors:
    groups, asked = by_key(seen), by_key(unseen)
    found = {}
    for key in groups.keys() & asked.keys():
        try:
            fit = fit_samples(groups[key], device)
        except CalibrationError:
            continue
        predicted_s = predict_s(fit, [sample.point for sample in asked[key]], device)
        measured_s = np.array([sample.time_us * US for sample in asked[key]])
        found[key] = np.abs(predicted_s / measured_s - 1)
    return found


def _seconds_per_point(samples: Sequence[Sample]) -> float:
    costs = [sample.wall_s for sample in samples if sample.wall_s]
    return float(np.mean(costs)) if costs else 0.0


def table_text(rows: Sequence[BudgetRow]) -> str:
    """Returns the table as it ships beside this module."""
    return "\n".join([_COMMENT, *(",".join(map(str, line)) for line in (BudgetRow._fields, *rows))]) + "\n"


def shipped_rows() -> tuple[BudgetRow, ...]:
    """Returns the table that was made on an H200."""
    lines = files(__package__).joinpath(TABLE).read_text(encoding="utf-8").splitlines()
    return tuple(_parsed(line.split(",")) for line in lines if line[:1].isdigit())


def _parsed(cells: Sequence[str]) -> BudgetRow:
    share, num_points, measuring_s, num_fits, *errors = cells
    median, p90, whole_median, whole_p90 = map(float, errors)
    return BudgetRow(
        float(share), int(num_points), int(measuring_s), int(num_fits), median, p90, whole_median, whole_p90
    )


def shortfall_line(share: float) -> str:
    """Returns what stopping after `share` of the plan costs, by the row of the shipped table below it."""
    rows = shipped_rows()
    row = max((row for row in rows if row.share <= share), default=rows[0], key=lambda row: row.share)
    return (
        f"{share:.0%} of the plan is measured; on an H200, {row.share:.0%} gave {row.num_fits} of "
        f"{rows[-1].num_fits} fits, with errors of {row.median:.1%} (median) and {row.p90:.1%} (p90) on "
        f"unseen points where the whole plan has {row.whole_median:.1%} and {row.whole_p90:.1%}"
    )
