"""Efficiencies of the roofline, for operations that were not measured, from those that were.

Rates of memories come from the ladder. Those of matrix units and of paged reads come from one large operation
of a fit each: what share of the datasheet's rate it reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..hwmodels.device import DeviceSpec
from ..hwmodels.op_point import OpPoint, work
from ..hwmodels.op_profile import OpProfile
from ..hwmodels.profile_schema import OpEntry
from .fit import round_significant

# Large enough that launches, waves and tails are lost in them; each with its implementations, best first.
_PRODUCT = ("cublas", "triton"), OpPoint("gemm", "", "bf16", m=8192, n=8192, k=8192)
_PREFILL = (
    ("sdpa-cudnn", "triton"),
    OpPoint(
        "attention_prefill", "", "bf16", batch=1, query_len=8192, num_q_heads=32, num_kv_heads=8, head_dim=128
    ),
)
_DECODE = (
    ("triton", "sdpa-flash"),
    OpPoint(
        "attention_decode", "", "bf16",
        batch=64, query_len=1, context_len=8192, num_q_heads=32, num_kv_heads=8, head_dim=128,
    ),
)  # fmt: skip
# Which rung of the ladder stands for which efficiency. What falls back on HBM's rate reads as much as it
# writes: lookups, copies into the cache, sums over experts.
_RUNGS = {
    "hbm": ("hbm_copy", "hbm_bytes_per_s"),
    "l2": ("l2", "l2_bytes_per_s"),
    "sram": ("sram", "sram_bytes_per_s"),
}


def derive_efficiencies(
    ladder: Mapping[str, Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], device: DeviceSpec
) -> dict[str, dict[str, Any]]:
    """Returns what ladder and fits say of efficiencies, at most 1, with their source; others are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name, (rung, rate) in _RUNGS.items():
        if rung in ladder:
            share = ladder[rung]["value"] / getattr(device, rate)
            found[name] = _coefficient(share, f"probe_{rung}, over the datasheet's {rate}", None)
    ops = OpProfile("fits", [OpEntry.model_validate(entry) for entry in entries], device)
    for name, (implementations, point) in (("matrix", _PRODUCT), ("attention_matrix", _PREFILL)):
        if (fitted := _fitted(ops, implementations, point)) is not None:
            needed = work(fitted)
            rate_s = max(needed.flops, needed.issued_flops) / device.matrix_flops_per_s[point.dtype]
            found[name] = _of_fit(ops, fitted, rate_s)
    if (fitted := _fitted(ops, *_DECODE)) is not None:
        found["kv_hbm"] = _of_fit(ops, fitted, work(fitted).hbm_bytes / device.hbm_bytes_per_s)
    return found


def _fitted(ops: OpProfile, implementations: Sequence[str], point: OpPoint) -> OpPoint | None:
    """Returns the point with the first implementation that was measured."""
    for implementation in implementations:
        if ops.has(point.op, implementation, point.dtype):
            return replace(point, implementation=implementation)
    return None


def _of_fit(ops: OpProfile, point: OpPoint, datasheet_s: float) -> dict[str, Any]:
    entry = ops.entry(point)
    sizes = ", ".join(f"{name} {getattr(point, name)}" for name in entry.valid if getattr(point, name))
    source = f"{point.op} {point.implementation} {point.dtype} at {sizes}"
    return _coefficient(datasheet_s / ops.predict(point).time_s, source, entry.held_out.median)


def _coefficient(share: float, source: str, held_out_error: float | None) -> dict[str, Any]:
    known = {} if held_out_error is None else {"held_out_error": held_out_error}
    return {"value": round_significant(min(1.0, share)), "source": source, **known}
