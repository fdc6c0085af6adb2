"""Times of what a step launches: measured where the profile holds the op, else from the roofline.

Both ways answer alike, so that what makes up a step (`step_parts`) does not know which one it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .calibration import Calibration
from .op_point import ExpertRankPoint, OpPoint
from .ops import Launches, Op
from .roofline import Roofline, Timing, add_timings

# Products go by the profile's name for them, wherever in the model they stand.
_PRODUCTS = {"lm_head": "gemm", "mla_up_projection": "gemm"}
# Both passes of per-tensor quantisation go by the measured kernel that does all in one.
# SIMPLIFIED: it writes what the first pass does not; effect: that pass up to a third too slow beyond L2.
_PASSES = {"quantize_max": "quantize_per_token", "quantize_scaled": "quantize_per_token"}


class KernelTimes(Protocol):
    """Prices launches."""

    def total(self, launches: Iterable[Launches]) -> Timing:
        """Returns the time of a sequence of launches, bound by what binds most of it."""
        ...


class CalibratedTimes:
    """Times from a calibrated profile; what it has not measured falls back on the device's roofline.

    Pure: no state changes after construction.
    """

    def __init__(self, calibration: Calibration, roofline: Roofline) -> None:
        self._calibration = calibration
        self._roofline = roofline

    def total(self, launches: Iterable[Launches]) -> Timing:
        """Returns the time of a sequence of launches; measured ops of one kind are priced together."""
        timings: list[tuple[int, Timing]] = []
        measured: dict[tuple[str, str], list[tuple[int, Op, OpPoint]]] = {}
        for repeats, alternatives in launches:
            op = alternatives[0]
            point = self._point(op)
            if point is None:
                timings.append((repeats, self._roofline.fastest(alternatives)))
            else:
                measured.setdefault((point.op, point.dtype), []).append((repeats, op, point))
        for (op_name, _), rows in measured.items():
            timings += self._price(op_name, rows)
        return add_timings(timings)

    def _price(self, op_name: str, rows: Sequence[tuple[int, Op, OpPoint]]) -> list[tuple[int, Timing]]:
        """Returns the timings of ops that share name and dtype, times the engine's ratio to the kernel."""
        calibration = self._calibration
        ratio = calibration.kernels.ratio(op_name)
        seconds = calibration.ops.seconds([point for _, _, point in rows]) * ratio
        return [
            (repeats, self._timing(op, float(time_s), calibration.ops.extrapolates(point)))
            for (repeats, op, point), time_s in zip(rows, seconds, strict=True)
        ]

    def _timing(self, op: Op, settled_s: float, is_extrapolated: bool) -> Timing:
        """Returns the timing at full clock of an op that was measured with the clock settled under load."""
        bound = self._bound(op)
        if bound != "matrix":
            return Timing(settled_s, bound, op.num_kernels, 0.0, 0.0, is_extrapolated)
        busy_s = settled_s * self._calibration.full_clock_ratio
        return Timing(busy_s, bound, op.num_kernels, 0.0, busy_s, is_extrapolated)

    def _bound(self, op: Op) -> str:
        """Returns what binds a measured op: FLOPs or bytes, whichever take longer at the device's rates."""
        if op.unit != "matrix":
            return "hbm"
        roofline = self._roofline
        matrix_s = op.flops / roofline.matrix_flops_per_s(op.dtype)
        return "matrix" if matrix_s > op.hbm_bytes / roofline.hbm_bytes_per_s else "hbm"

    def _point(self, op: Op) -> OpPoint | None:
        """Returns the row of a measured op, None if the profile cannot price it."""
        if op.sizes is None or not op.sizes.m:
            return None
        m, n, k, num_experts, top_k, picks, skew = op.sizes
        name = _PRODUCTS.get(op.kind) or _PASSES.get(op.kind, op.kind)
        point = OpPoint(
            name, "", op.weight_dtype or op.dtype,
            m=m, n=n, k=k, num_experts=num_experts, top_k=top_k, skew=skew,
        )  # fmt: skip
        return self._calibration.measured(ExpertRankPoint.of(point, picks) if picks else point)
