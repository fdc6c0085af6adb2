"""How wrong a fit is on shapes that it never saw: whole groups are left out, never random rows.

A product's group is its weight (n, k), an attention op's its heads, a mixture's its experts: every sample of
the group is predicted by a fit of all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_point import OpPoint
from ..units import US
from .fit import fit_samples, predict_s, round_significant
from .samples import Sample

Array = NDArray[np.float64]
FOLDS = 5


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Relative errors |predicted / measured - 1| of samples whose group was left out of the fit.

    grouped_by: what was left out whole; num_groups: how many of them there are.
    """

    median: float
    p90: float
    worst: float
    grouped_by: str
    num_groups: int
    num_samples: int


def group_of(point: OpPoint) -> tuple[int, ...]:
    """Returns what identifies the shape that is left out together."""
    if point.op in ("gemm", "grouped_gemm"):
        return (point.n, point.k, point.num_experts)
    if point.op.startswith("attention"):
        return (point.num_q_heads, point.num_kv_heads, point.head_dim)
    if point.op == "mla_decode":
        return (point.batch,)
    return (point.n,)


_GROUP_NAMES = {
    "gemm": "(n, k)",
    "grouped_gemm": "(n, k, experts)",
    "attention_prefill": "heads",
    "attention_decode": "heads",
    "mla_decode": "batch",
}


def held_out(samples: Sequence[Sample], device: DeviceSpec, *, folds: int = FOLDS) -> HeldOut:
    """Returns the errors of samples of one op, implementation and dtype, each predicted by the other folds.

    Groups go to folds in turn, in sorted order, so that every fold has small and large ones.
    Raises: CalibrationError if too few samples are left to fit.
    """
    errors = np.abs(held_out_ratios(samples, device, folds=folds) - 1)
    op = samples[0].point.op
    return HeldOut(
        median=round_significant(float(np.median(errors))),
        p90=round_significant(float(np.quantile(errors, 0.9))),
        worst=round_significant(float(errors.max())),
        grouped_by=_GROUP_NAMES.get(op, "row width"),
        num_groups=len({group_of(sample.point) for sample in samples}),
        num_samples=len(samples),
    )


def held_out_ratios(samples: Sequence[Sample], device: DeviceSpec, *, folds: int = FOLDS) -> Array:
    """Returns predicted over measured time of every sample, its group unseen."""
    groups = sorted({group_of(sample.point) for sample in samples})
    fold_of = {group: place % folds for place, group in enumerate(groups)}
    ratios = np.empty(len(samples))
    for fold in range(min(folds, len(groups))):
        unseen = [place for place, sample in enumerate(samples) if fold_of[group_of(sample.point)] == fold]
        seen = [sample for sample in samples if fold_of[group_of(sample.point)] != fold]
        fit = fit_samples(seen, device)
        predicted_s = predict_s(fit, [samples[place].point for place in unseen], device)
        ratios[unseen] = predicted_s / np.array([samples[place].time_us * US for place in unseen])
    return ratios
