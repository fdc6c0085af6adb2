"""Paged decode attention: contexts split over the SMs, each part walked block by block, then added up.

Two kinds of requests stand for a batch: the longest, and all others with the mean of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from .device import DeviceSpec
from .flash_splits import FLASH_CTAS_PER_SM, FLASH_ROWS, MAX_SPLITS, flash_keys, flash_splits
from .op_form import (
    HBM,
    LAUNCH,
    NEVER,
    OVERLAP,
    Array,
    Coefficient,
    Coefficients,
    Features,
    Form,
    Priced,
    smooth_max,
)
from .op_point import EIGHT_BIT, OpPoint, attention_shape, work

# Keys that a CTA takes at a time, and CTAs per SM that contexts are split for.
# Source: kernels/attention_decode, tuned on H200.
_KEYS, _SPLIT_CTAS_PER_SM = 32, 4
# CTAs that one SM holds, by registers and at most by shared memory: threads of one, registers of a thread for
# everything but the accumulators, and for each of those; more where keys are first converted to 16 bits.
# Source: H100 whitepaper (65,536 registers an SM, 255 a thread); kernels/attention_decode as compiled for
# H200: 16, 32 and 64 rows of 128 dimensions need 126, 168, 254 registers, with an 8-bit cache 143, 203, 255.
_THREADS, _REGISTERS, _MOST_REGISTERS, _FIXED_REGISTERS = 64, 65536, 255, 84.0
_PER_ACCUMULATOR, _PER_CONVERTED = 1.33, 1.875
_RESIDENT_CTAS = 10
_LEAST_ROWS, _MOST_ROWS = 16, 256  # Source: PTX ISA, mma m16n8k16; kernels/attention_decode
# Latent attention: heads that a CTA holds, keys that it takes at a time; it fills an SM's shared memory.
# Where heads fill whole CTAs, Hopper's kernel runs.
# Source: kernels/attention_mla_hopper and kernels/attention_mla_decode, tuned on H200
_MLA_HEADS, _MLA_KEYS = 64, 64
_PARTIAL_BYTES = 4  # partial results are fp32
_ROWS, _HEAD_DIM = 16, 128  # of one fragment, the unit of a CTA's work per key
_REDUCED = 256  # partial results that a CTA of the reduction holds, from which on it copies well
# How sharply the longest request and the mean of a slot meet.
_SLOT_CORNER = 12.0


class _Cut(NamedTuple):
    """CTAs of a request, parts of its keys, rows and keys at a time of a CTA, and CTAs that one SM holds."""

    groups: int
    splits: int
    rows: int
    block: int
    resident: int
    is_portable: bool = False


def decode_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns traffic, work per SM, and the keys that one slot for a CTA and the longest CTA walk."""
    rows = [_row(point, device) for point in points]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}


def _row(point: OpPoint, device: DeviceSpec) -> dict[str, float]:
    cut, shape = _cut(point, device.num_sms), attention_shape(point)
    longest, others = _contexts(point)
    padded = _padded(longest, cut.block) + (point.batch - 1) * _padded(others, cut.block)
    num_ctas = point.batch * cut.groups * cut.splits
    slots = device.num_sms * cut.resident
    waves = max(1.0, num_ctas / slots)
    fragments = cut.rows / _ROWS * shape.v_head_dim / _HEAD_DIM
    is_split = float(cut.splits > 1)
    outputs = point.batch * point.query_len * point.num_q_heads * shape.v_head_dim
    summed = (1 << (cut.splits - 1).bit_length()) * shape.v_head_dim
    return {
        "hbm_bytes": work(point).hbm_bytes
        + (padded - point.batch * point.context_len) * shape.kv_bytes_per_token,
        "ctas": num_ctas / device.num_sms,
        "fragment_keys": padded * cut.groups * fragments / device.num_sms,
        "slot_keys": padded * cut.groups / slots,
        "idle_keys": (ceil(waves) - waves) * _part(others, cut),
        "longest_keys": _part(longest, cut),
        "fragments": fragments,
        "spilled": _spilled(cut.rows, point),
        "is_portable": float(cut.is_portable),
        "is_split": is_split,
        "partial_bytes": is_split * 2 * _PARTIAL_BYTES * cut.splits * outputs,
        "summed": max(1.0, summed / _REDUCED),
    }


def _contexts(point: OpPoint) -> tuple[float, float]:
    """Returns the keys of the longest request and the mean of the others."""
    longest = point.longest_context
    if point.batch == 1 or longest == point.context_len:
        return longest, float(longest if point.batch == 1 else point.context_len)
    return longest, max(1.0, (point.batch * point.context_len - longest) / (point.batch - 1))


def _padded(keys: float, block: int) -> float:
    """Returns the keys in whole blocks, as a CTA loads them."""
    return ceil(keys / block) * block


def _part(keys: float, cut: _Cut) -> float:
    """Returns the keys of one part of a request, whole blocks of them."""
    return ceil(ceil(keys / cut.block) / cut.splits) * cut.block


def _cut(point: OpPoint, num_sms: int) -> _Cut:
    """Returns how a kernel cuts a batch: every request into as many parts, so that the grid fills the SMs."""
    groups, heads = point.num_kv_heads, point.query_len * point.num_q_heads // point.num_kv_heads
    if point.implementation == "sdpa-flash":
        splits = flash_splits(point.batch * groups, point.context_len, point.head_dim, num_sms)
        rows = FLASH_ROWS if splits > 1 else 2 * FLASH_ROWS
        return _Cut(groups, splits, rows, flash_keys(point.head_dim), FLASH_CTAS_PER_SM)
    if point.op == "mla_decode":
        groups = ceil(point.num_q_heads / _MLA_HEADS)
        is_portable = point.num_q_heads % _MLA_HEADS > 0
        splits = _splits(point, groups, _MLA_KEYS, num_sms)
        return _Cut(groups, splits, _MLA_HEADS, _MLA_KEYS, 1, is_portable)
    rows = 1 << max(0, min(_MOST_ROWS, max(_LEAST_ROWS, heads)) - 1).bit_length()
    registers = min(_MOST_REGISTERS, _registers(rows, point))
    resident = max(1, min(_RESIDENT_CTAS, int(_REGISTERS / (_THREADS * registers))))
    splits = _splits(point, groups, _KEYS, _SPLIT_CTAS_PER_SM * num_sms)
    return _Cut(groups, splits, rows, _KEYS, resident)


def _splits(point: OpPoint, groups: int, block: int, wanted_ctas: int) -> int:
    wanted = ceil(wanted_ctas / (point.batch * groups))
    return max(1, min(wanted, ceil(point.longest_context / block), MAX_SPLITS))


def _registers(rows: int, point: OpPoint) -> float:
    """Returns the registers that a thread of our kernel would need for everything."""
    each = _PER_CONVERTED if point.dtype in EIGHT_BIT else _PER_ACCUMULATOR
    return _FIXED_REGISTERS + each * rows * point.head_dim / _THREADS


def _spilled(rows: int, point: OpPoint) -> float:
    """Returns what does not fit a thread's registers, as a share of them."""
    if point.op == "mla_decode" or point.implementation != "triton":
        return 0.0
    return max(0.0, _registers(rows, point) / _MOST_REGISTERS - 1)


def _decode_price(features: Features, coefficients: Coefficients) -> Priced:
    """Returns both launches, the longest of traffic, matrix work and chains of blocks, and the reduction.

    A CTA walks its keys one block after the other: a time per key, more for every 16 rows of 128 dimensions,
    and `spill` times more where its registers overflow. A slot for CTAs takes its share of all keys and
    `tail` of what the last wave leaves idle, but no less than the longest CTA.
    The reduction adds up the parts of split contexts; its CTAs copy poorly where they hold few values.
    """
    rate = coefficients.__getitem__
    spills = 1 + rate("spill") * features["spilled"]
    hbm_s = features["hbm_bytes"] / rate("hbm_bytes_per_s")
    matrix_s = features["fragment_keys"] * spills / rate("fragment_keys_per_s")
    key_s = rate("key_s") + features["fragments"] * spills * rate("fragment_s")
    key_s = key_s * (1 + features["is_portable"] * (rate("portable") - 1))
    slot_keys = features["slot_keys"] + rate("tail") * features["idle_keys"]
    latency_s = key_s * smooth_max(_SLOT_CORNER, features["longest_keys"], slot_keys)
    start_s = features["ctas"] * rate("cta_s")
    launch_s = rate("launch_s") + start_s + _reduce_s(features, coefficients)
    parts = {"hbm": hbm_s, "matrix": matrix_s, "latency": latency_s, "launch": launch_s}
    return Priced(smooth_max(rate("overlap"), hbm_s, matrix_s, latency_s) + launch_s, parts)


def _reduce_s(features: Features, coefficients: Coefficients) -> Array:
    """Returns the time of adding up the parts of split contexts."""
    rate = coefficients.__getitem__
    partial_s = features["partial_bytes"] / rate("partial_bytes_per_s")
    return features["is_split"] * rate("reduce_s") + partial_s * features["summed"] ** -rate("coalescing")


DECODE = Form(
    "decode",
    (
        LAUNCH,
        HBM,
        Coefficient("key_s", "s", 3e-8, 1e-10, 1e-6, "one key of a CTA, its bytes included"),
        Coefficient(
            "fragment_s", "s", 3e-9, 1e-11, 1e-6,
            "one key of a CTA with 16 rows of 128 dimensions", absent=0.0,
        ),
        Coefficient(
            "fragment_keys_per_s", "1/s", 5e8, 1e6, 1e12,
            "keys with 16 rows of 128 dimensions that one SM multiplies", absent=NEVER,
        ),
        Coefficient(
            "spill", "factor", 3.0, 0.01, 100.0, "time added by registers spilled once over", absent=0.0
        ),
        Coefficient(
            "portable", "factor", 1.5, 0.1, 20.0, "portable latent kernel over Hopper's", absent=1.0
        ),
        Coefficient(
            "tail", "share", 0.4, 0.01, 1.0, "how much of a last wave's idle part counts", absent=0.0
        ),
        Coefficient("cta_s", "s", 1e-7, 1e-9, 3e-5, "start and end of one CTA", absent=0.0),
        Coefficient("reduce_s", "s", 1e-6, 1e-8, 2e-5, "launch of the reduction over splits", absent=0.0),
        Coefficient(
            "partial_bytes_per_s", "B/s", 2e12, 1e11, 1e14,
            "partial results, written and read", absent=NEVER,
        ),
        Coefficient(
            "coalescing", "exponent", 0.3, 0.001, 2.0, "how the reduction gains from long rows", absent=0.0
        ),
        OVERLAP,
    ),
    decode_features,
    _decode_price,
)  # fmt: skip
