"""How wrong a fit is on shapes that it never saw: whole groups are left out, never random rows.

A product's group is its weight (n, k), an attention op's its heads, a mixture's its experts: every sample of
the group is predicted by a fit of all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_model import FORM_OF_OP
from ..hwmodels.op_point import OpPoint
from .fit import Measured, OpFit, fit_measured, round_significant
from .samples import Sample

Array = NDArray[np.float64]
FOLDS = 5
MIN_GROUPS = 2


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
    if FORM_OF_OP[point.op] == "gemm":
        return (point.n, point.k, point.num_experts)
    if point.op.startswith("attention"):
        return (point.num_q_heads, point.num_kv_heads, point.head_dim)
    if point.op == "mla_decode":
        return (point.batch,)
    if point.op == "rope":
        return (point.num_q_heads, point.num_kv_heads, point.head_dim)
    return (point.n,)


_GROUP_NAMES = {
    "gemm": "(n, k)",
    "gemm_block_scaled": "(n, k)",
    "gemm_weight_only": "(n, k)",
    "patch_embed": "(n, k)",
    "grouped_gemm": "(n, k, experts)",
    "attention_prefill": "heads",
    "attention_vision": "heads",
    "attention_decode": "heads",
    "rope": "heads",
    "mla_decode": "batch",
}


def grouping(op: str) -> str:
    """Returns what is left out together, in words."""
    return _GROUP_NAMES.get(op, "row width")


def held_out(
    samples: Sequence[Sample], device: DeviceSpec, *, near: OpFit | None = None, folds: int = FOLDS
) -> HeldOut:
    """Returns the errors of samples of one op, implementation and dtype, each predicted by the other folds.

    Groups go to folds in turn, in sorted order, so that every fold has small and large ones.
    near: the fit of all samples, if it is known already; every fold's fit starts there, to save searching.
    Raises: CalibrationError if too few samples are left to fit.
    """
    errors = np.abs(held_out_ratios(samples, device, near=near, folds=folds) - 1)
    op = samples[0].point.op
    return HeldOut(
        median=round_significant(float(np.median(errors))),
        p90=round_significant(float(np.quantile(errors, 0.9))),
        worst=round_significant(float(errors.max())),
        grouped_by=grouping(op),
        num_groups=len({group_of(sample.point) for sample in samples}),
        num_samples=len(samples),
    )


def held_out_ratios(
    samples: Sequence[Sample], device: DeviceSpec, *, near: OpFit | None = None, folds: int = FOLDS
) -> Array:
    """Returns predicted over measured time of every sample, its group unseen; as `held_out`.

    Raises: CalibrationError if there is one group only, or too few samples without it.
    """
    measured = Measured.of(samples, device)
    groups = sorted({group_of(sample.point) for sample in samples})
    if len(groups) < MIN_GROUPS:
        point = samples[0].point
        what = f"one {grouping(point.op)} only, leaving some out needs {MIN_GROUPS}"
        raise CalibrationError(f"{point.op} {point.implementation} {point.dtype}: {what}")
    fold_of = {group: place % folds for place, group in enumerate(groups)}
    fold = np.array([fold_of[group_of(sample.point)] for sample in samples])
    is_steady = np.array([not sample.is_noisy for sample in samples])
    near = near or fit_measured(measured.take(np.flatnonzero(is_steady).tolist()))
    ratios = np.empty(len(samples))
    for number in range(min(folds, len(groups))):
        fit = fit_measured(measured.take(np.flatnonzero((fold != number) & is_steady).tolist()), near=near)
        unseen = measured.take(np.flatnonzero(fold == number).tolist())
        ratios[fold == number] = unseen.predict_s(fit) / np.exp(unseen.logs)
    return ratios
