"""The numbers that a calibration report shows: samples with what the profile predicts for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..hwmodels.op_point import OpPoint
from ..hwmodels.op_profile import OpProfile
from ..units import US
from .fit import by_key
from .samples import Sample
from .validate import group_of

# Sizes that name a point, in the order in which people say them.
_SIZES = (
    "m", "n", "k", "batch", "query_len", "context_len", "max_context_len", "num_q_heads", "num_kv_heads",
    "head_dim", "num_experts", "top_k", "kernel_size", "skew",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReportPoint:
    """One measured point. flops_per_byte, flops_per_s: where it stands under the roofs.

    ratio: predicted over measured time. shape: the group that held-out errors leave out whole.
    """

    label: str
    shape: str
    measured_s: float
    predicted_s: float
    flops_per_byte: float
    flops_per_s: float

    @property
    def ratio(self) -> float:
        """Predicted over measured time; 1 is right."""
        return self.predicted_s / self.measured_s


def report_points(profile: OpProfile, samples: Sequence[Sample]) -> Mapping[str, list[ReportPoint]]:
    """Returns the points by `op implementation dtype`, those that the profile can predict."""
    found = {}
    for key, group in by_key(samples).items():
        if profile.has(*key):
            seconds = profile.seconds([sample.point for sample in group])
            pairs = zip(group, seconds.tolist(), strict=True)
            found[" ".join(key)] = [_report_point(sample, predicted_s) for sample, predicted_s in pairs]
    return found


def _report_point(sample: Sample, predicted_s: float) -> ReportPoint:
    point, measured_s = sample.point, sample.time_us * US
    return ReportPoint(
        label=describe_point(point),
        shape=" x ".join(f"{size:g}" for size in group_of(point) if size),
        measured_s=measured_s,
        predicted_s=predicted_s,
        flops_per_byte=sample.flops / sample.hbm_bytes if sample.hbm_bytes else 0.0,
        flops_per_s=sample.flops / measured_s,
    )


def describe_point(point: OpPoint) -> str:
    """Returns the sizes of a point that are not 0: `m 4096, n 6144, k 4096`."""
    sizes = [f"{name} {getattr(point, name):g}" for name in _SIZES if getattr(point, name)]
    return ", ".join([*sizes, *(["sustained"] if point.sustained else [])])


def matrix_roofs(points: Mapping[str, Sequence[ReportPoint]]) -> dict[str, float]:
    """Returns the highest rate [FLOP/s] that any measured product reached, by dtype."""
    roofs: dict[str, float] = {}
    for key, group in points.items():
        op, _, dtype = key.split()
        if op.startswith("gemm") and "weight_only" not in op:
            roofs[dtype] = max(roofs.get(dtype, 0.0), *(point.flops_per_s for point in group))
    return roofs
