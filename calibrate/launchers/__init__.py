"""Turns a point of the plan into launches of the kernels that it names, over rotating buffers.

What an engine finds cold in L2 is cold here: weights, and keys and values (every layer has its own). What the
kernel before has just written stays: the activations of products and the rows of elementwise ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import CalibrationError
from ...hwmodels.op_point import OpPoint
from ..buffers import Pools
from . import attention, experts, gemm, probes, rows, vision
from .maker import Launch, Maker

__all__ = ["Launch", "can_launch", "make_alternatives"]

_MAKERS: Mapping[tuple[str, str], Maker] = {
    **gemm.MAKERS,
    **attention.MAKERS,
    **experts.MAKERS,
    **rows.MAKERS,
    **vision.MAKERS,
    **probes.MAKERS,
}


def make_alternatives(point: OpPoint, pools: Pools) -> Sequence[Sequence[Launch]]:
    """Returns the ways to run one point, of which the fastest counts: its launches, each over other buffers.

    Only our own products have several, as tuning would choose among them; libraries choose by themselves.
    Raises: CalibrationError for an op and implementation that do not go together.
    """
    maker = _MAKERS.get((point.op, point.implementation))
    if maker is None:
        raise CalibrationError(f"{point.op} has no implementation {point.implementation!r} to measure")
    return maker(point, pools)


def can_launch(op: str, implementation: str) -> bool:
    """Returns whether an op has kernels of this implementation to measure."""
    return (op, implementation) in _MAKERS
