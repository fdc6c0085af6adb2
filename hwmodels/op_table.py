"""Prices single operations, whatever the profile knows of them: measured kernels, links, else the roofline.

What was not measured is marked as extrapolated: a size beyond the measured ones, an operation or a dtype that
the profile lacks, and everything on a datasheet profile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..errors import SimllmError
from . import ops
from .collectives import Collectives
from .kernel_choice import KernelChoice
from .op_columns import COLLECTIVES, OpRow
from .op_point import ACTIVATION_DTYPE, EIGHT_BIT, OpPoint, work
from .ops import Op
from .profile import HardwareProfile
from .roofline import Roofline

LINK = "link"
# What binds a launch whose kernels are shorter than the gaps between them.
_LAUNCH = "launch"


@dataclass(frozen=True, slots=True)
class PricedOp:
    """One operation's time [s], FLOPs and bytes. bound: the resource that binds it, see `op_form.Priced`.

    num_bytes: moved to and from HBM, of a collective one rank's buffer.
    """

    time_s: float
    flops: float
    num_bytes: float
    bound: str
    is_extrapolated: bool


class OpTable:
    """Prices rows on one profile with one choice of kernels. Pure: no state changes what it returns."""

    def __init__(self, profile: HardwareProfile, kernels: KernelChoice) -> None:
        self._profile = profile
        self._kernels = kernels
        self._roofline = Roofline(profile.device, profile.efficiency)
        self._collectives = Collectives(profile.links, profile.device, profile.efficiency)

    def price(self, row: OpRow) -> PricedOp:
        """Returns what an operation takes. Raises: SimllmError if the device cannot run it."""
        if row.point.op in COLLECTIVES:
            return self._collective(row)
        ratio = self._kernels.ratio(row.point.op)
        point = replace(row.point, implementation=self._kernels.implementation(row.point.op))
        profile = self._profile.ops
        if profile is None or not profile.has(point.op, point.implementation, point.dtype):
            return self._from_roofline(point)
        found = profile.predict(point)
        return PricedOp(
            ratio * found.time_s, found.flops, found.hbm_bytes, found.bound, found.is_extrapolated
        )

    def _collective(self, row: OpRow) -> PricedOp:
        name, num_bytes, num_gpus = row.point.op, row.num_bytes, row.num_gpus
        seconds: Mapping[str, Callable[[float, int], float]] = {
            "all_reduce": self._collectives.all_reduce_s,
            "all_gather": self._collectives.all_gather_s,
            "reduce_scatter": self._collectives.reduce_scatter_s,
            "all_to_all": self._collectives.all_to_all_s,
            "broadcast": self._collectives.broadcast_s,
            "send_recv": self._collectives.send_recv_s,
        }
        is_measured = any(entry.collective == name for entry in self._profile.links)
        is_extrapolated = self._collectives.is_extrapolated(name, num_bytes, num_gpus)
        time_s = seconds[name](num_bytes, num_gpus)
        return PricedOp(time_s, 0.0, num_bytes, LINK, is_extrapolated or not is_measured)

    def _from_roofline(self, point: OpPoint) -> PricedOp:
        """Returns the fastest way that the roofline knows, launches included."""
        alternatives = _alternatives(point)
        timing = self._roofline.fastest(alternatives)
        launch_s = timing.num_kernels * self._roofline.launch_s
        bound = timing.bound if timing.busy_s >= launch_s else _LAUNCH
        op = alternatives[0]
        return PricedOp(timing.busy_s + launch_s, op.flops, op.hbm_bytes, bound, True)


def _alternatives(point: OpPoint) -> tuple[Op, ...]:
    """Returns the ways that the roofline prices an operation by."""
    m, n, k, dtype = point.m, point.n, point.k, point.dtype
    out_dtype = ACTIVATION_DTYPE if dtype in EIGHT_BIT else dtype
    if point.op in ("gemm", "gemm_block_scaled", "patch_embed", "conv2d"):
        return ops.gemm_candidates(m, n, k, dtype, out_dtype=out_dtype)
    if point.op == "gemm_weight_only":
        return ops.gemm_candidates(m, n, k, ACTIVATION_DTYPE, weight_dtype=dtype)
    if point.op == "grouped_gemm":
        return ops.grouped_gemm_candidates(m, n, k, dtype, num_experts=point.num_experts, top_k=point.top_k)
    plain: Mapping[str, Callable[[], Op]] = {
        "activation": lambda: ops.activation(m, n, dtype),
        "embedding": lambda: ops.embedding(m, n, dtype),
        "quantize": lambda: ops.quantize(m * n, ACTIVATION_DTYPE, dtype),
    }
    make = plain.get(point.op)
    if make is not None:
        return (make(),)
    try:
        return (work(point),)
    except KeyError as error:
        raise SimllmError(f"{point.op} has no dtype {error.args[0]!r}") from None
