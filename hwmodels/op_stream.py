"""Passes over rows: norms, activations, quantisation, positions, softmax and sampling, bound by bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..units import DTYPE_BYTES
from .device import DeviceSpec
from .op_form import HBM, LAUNCH, NEVER, Coefficient, Coefficients, Features, Form, Priced, smooth_max
from .op_point import OpPoint, work

_ROW_UNIT = 4096
# What one CTA of an elementwise pass holds at most. Source: kernels/elementwise.
_ELEMENTWISE = ("silu_mul", "quantize_per_group")
_BLOCK = 4096
# A row that one warp holds needs no exchange between warps. Source: kernels/norm.
_WARP_BYTES = 2048
_SPILL_CORNER = 2.0  # how sharply L2's rate and HBM's meet


def stream_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the bytes, and what one CTA holds and searches, in units of 4,096 elements."""
    held = [_held_elements(point) for point in points]
    return {
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
        "row": np.array(held) / _ROW_UNIT,
        "searched": np.array([point.n if point.op == "sampling" and point.top_k else 0 for point in points])
        / _ROW_UNIT,
        "is_wide": np.array(
            [
                float(elements * DTYPE_BYTES[point.activation_dtype] > _WARP_BYTES)
                for elements, point in zip(held, points, strict=True)
            ]
        ),
    }


def _held_elements(point: OpPoint) -> float:
    if point.op == "rope":
        return float((point.num_q_heads + point.num_kv_heads) * point.head_dim)
    return float(min(point.n, _BLOCK) if point.op in _ELEMENTWISE else point.n)


def _stream_price(features: Features, coefficients: Coefficients) -> Priced:
    """Returns launch and rows, and bytes at the L2's rate, those that L2 cannot keep at HBM's rate as well.

    What misses grows smoothly around the L2's size: 1 / (1 + (capacity / bytes)^sharpness).
    """
    rate = coefficients.__getitem__
    num_bytes = features["hbm_bytes"]
    missing = 1 / (1 + (rate("l2_capacity_bytes") / num_bytes) ** rate("sharpness"))
    l2_s = num_bytes / rate("l2_bytes_per_s")
    hbm_s = missing * num_bytes / rate("hbm_bytes_per_s")
    row_s = features["row"] * rate("row_s") + features["is_wide"] * rate("exchange_s")
    row_s = row_s + features["searched"] * rate("search_s")
    launch_s = np.full(num_bytes.shape, rate("launch_s"))
    parts = {"hbm": hbm_s, "l2": l2_s, "latency": row_s, "launch": launch_s}
    return Priced(launch_s + row_s + smooth_max(_SPILL_CORNER, l2_s, hbm_s), parts)


STREAM = Form(
    "stream",
    (
        LAUNCH,
        Coefficient("l2_bytes_per_s", "B/s", 6e12, 3e11, 4e13, "bytes that are still in L2", absent=NEVER),
        HBM,
        Coefficient("l2_capacity_bytes", "B", 4e7, 4e6, 2e8, "traffic at which half of it misses L2"),
        Coefficient("sharpness", "exponent", 3.0, 1.0, 12.0, "how sudden L2 overflows"),
        Coefficient(
            "row_s", "s", 5e-7, 1e-8, 1e-5, "4,096 elements of a row, read and reduced by one CTA", absent=0.0
        ),
        Coefficient(
            "search_s", "s", 4e-6, 1e-7, 1e-3, "4,096 elements of one row, searched for the top k", absent=0.0
        ),
        Coefficient("exchange_s", "s", 4e-7, 1e-8, 1e-5, "exchange between the warps of a row", absent=0.0),
    ),
    stream_features,
    _stream_price,
)  # fmt: skip
