"""Paged decode attention: contexts split over the SMs, each part walked block by block, then added up.

Two kinds of requests stand for a batch: the longest, and all others with the mean of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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

# Our kernel, for a few rows of queries and for more: keys that a CTA takes at a time. Blocks that hold fewer
# are gathered by ordinary loads. CTAs per SM that contexts are split for.
# Source: kernels/attention_decode, tuned on H200.
_FEW_ROWS, _FEW_KEYS, _MANY_KEYS, _SPLIT_CTAS_PER_SM = 16, 32, 64, 4
# CTAs that one SM holds, by registers and shared memory: of few rows, those with an 8-bit cache, those that
# gather; of more, by fp32 sums of a thread.
# Source: H100 whitepaper (65,536 registers and 228 KiB an SM); the kernel as compiled for H200: 126, 143 and
# 80 registers of 64, 64 and 128 threads; 100, 128 and 138 of 128 threads (82 KB), 8-bit 104, 167 and 160.
_FEW_CTAS, _FEW_8_BIT_CTAS, _FEW_GATHERED_CTAS = 8, 7, 6
_MANY_CTAS, _MANY_8_BIT_CTAS, _MOST_CTAS, _LEAST_CTAS = {16: 5, 32: 4, 64: 2}, {16: 4, 32: 3, 64: 3}, 5, 2
_THREADS = 128  # of a CTA of many rows
# From so many rows on products run as wgmma, twice as fast as mma.sync, and CTAs of an SM wait for its matrix
# units, not for their own keys. Source: PTX ISA, wgmma.mma_async (64 rows); measured on H200.
_WGMMA_ROWS, _WGMMA_SPEED = 64, 2.0
_LEAST_ROWS, _MOST_ROWS = 16, 256  # Source: PTX ISA, mma m16n8k16; kernels/attention_decode
# Latent attention: heads that a CTA holds, keys that it takes at a time; it fills an SM's shared memory.
# Where heads fill whole CTAs, Hopper's kernel runs.
# Source: kernels/attention_mla_hopper and kernels/attention_mla_decode, tuned on H200
_MLA_HEADS, _MLA_KEYS = 64, 64
# In the time of one such step: start and end of a CTA, and one partial result written and read. By these
# Hopper's kernel chooses its splits. Source: kernels/attention_mla_hopper
_MLA_START, _MLA_PARTIAL = 3.0, 0.04
_PARTIAL_BYTES = 4  # partial results are fp32
_ROWS, _HEAD_DIM = 16, 128  # of one fragment, the unit of a CTA's work per key
# Up to so many parts one thread adds up; of more, a CTA of the reduction holds so many elements.
# Source: kernels/attention_splits
_FEW_SPLITS, _REDUCED_ELEMENTS, _LEAST_WIDTH = 8, 64 * 128, 16
# How sharply the longest request and the mean of a slot meet.
_SLOT_CORNER = 12.0


class _Cut(NamedTuple):
    """CTAs of a request, parts of its keys, rows and keys at a time of a CTA, and CTAs that one SM holds.

    is_portable: the latent kernel that is not Hopper's. is_few, is_many: ours of few rows, of more.
    is_gathered: its keys are not copied in one piece.
    """

    groups: int
    splits: int
    rows: int
    block: int
    resident: int
    is_portable: bool = False
    is_few: bool = False
    is_many: bool = False
    is_gathered: bool = False

    @property
    def is_wgmma(self) -> bool:
        """Whether ours runs on Hopper's own products."""
        return self.is_many and self.rows >= _WGMMA_ROWS


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
    speed = _WGMMA_SPEED if cut.is_wgmma else 1.0
    padding = padded - point.batch * point.context_len
    return {
        "hbm_bytes": work(point).hbm_bytes + padding * shape.kv_bytes_per_token,
        "ctas": num_ctas / device.num_sms,
        # Of few rows the products hide behind a CTA's other steps.
        "fragment_keys": 0.0 if cut.is_few else padded * cut.groups * fragments / speed / device.num_sms,
        "slot_keys": padded * cut.groups / slots,
        "idle_keys": 0.0 if cut.is_wgmma else (ceil(waves) - waves) * _part(others, cut),
        "longest_keys": _part(longest, cut),
        "fragments": 0.0 if cut.is_many else fragments,
        "is_portable": float(cut.is_portable),
        "is_many": float(cut.is_many),
        "is_gathered": float(cut.is_gathered),
        **_reduction(point, cut, device),
    }


def _reduction(point: OpPoint, cut: _Cut, device: DeviceSpec) -> dict[str, float]:
    """Returns what adding up the parts of contexts moves, and its CTAs where warps must exchange sums."""
    width = attention_shape(point).v_head_dim
    outputs = point.batch * point.query_len * point.num_q_heads * width
    is_split, is_exchanged = float(cut.splits > 1), float(cut.splits > _FEW_SPLITS)
    columns = max(_LEAST_WIDTH, min(width, _REDUCED_ELEMENTS // (1 << (cut.splits - 1).bit_length())))
    return {
        "is_split": is_split,
        "is_exchanged": is_exchanged,
        "partial_bytes": is_split * 2 * _PARTIAL_BYTES * cut.splits * outputs,
        "reduce_ctas": is_exchanged * outputs / columns / device.num_sms,
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
        split = _splits if is_portable else _latent_splits
        splits = split(point, groups, _MLA_KEYS, num_sms)
        return _Cut(groups, splits, _MLA_HEADS, _MLA_KEYS, 1, is_portable)
    rows = 1 << max(0, min(_MOST_ROWS, max(_LEAST_ROWS, heads)) - 1).bit_length()
    is_few = heads <= _FEW_ROWS
    block = _FEW_KEYS if is_few else _MANY_KEYS
    is_gathered = 0 < point.block_size < block
    splits = _splits(point, groups, block, _SPLIT_CTAS_PER_SM * num_sms)
    resident = _resident(rows, point, is_few=is_few, is_gathered=is_gathered)
    return _Cut(
        groups, splits, rows, block, resident, is_few=is_few, is_many=not is_few, is_gathered=is_gathered
    )


def _resident(rows: int, point: OpPoint, *, is_few: bool, is_gathered: bool) -> int:
    """Returns the CTAs of our kernel that one SM holds."""
    is_8_bit = point.dtype in EIGHT_BIT
    if is_few:
        return _FEW_GATHERED_CTAS if is_gathered else _FEW_8_BIT_CTAS if is_8_bit else _FEW_CTAS
    known, sums = _MANY_8_BIT_CTAS if is_8_bit else _MANY_CTAS, rows * point.head_dim // _THREADS
    return known.get(sums, _MOST_CTAS if sums < min(known) else _LEAST_CTAS)


def _splits(point: OpPoint, groups: int, block: int, wanted_ctas: int) -> int:
    wanted = ceil(wanted_ctas / (point.batch * groups))
    return max(1, min(wanted, ceil(point.longest_context / block), MAX_SPLITS))


@lru_cache(maxsize=4096)
def _fastest_splits(num_programs: int, num_tiles: int, num_sms: int) -> int:
    """Returns into how many parts Hopper's latent kernel cuts contexts, for the shortest sum of waves."""

    def cost(splits: int) -> float:
        steps = ceil(num_programs * splits / num_sms) * (ceil(num_tiles / splits) + _MLA_START)
        return steps + (0.0 if splits == 1 else _MLA_PARTIAL * num_programs * splits)

    return min(range(1, min(num_tiles, MAX_SPLITS) + 1), key=cost)


def _latent_splits(point: OpPoint, groups: int, block: int, num_sms: int) -> int:
    return _fastest_splits(point.batch * groups, ceil(point.longest_context / block), num_sms)


def _decode_price(features: Features, coefficients: Coefficients) -> Priced:
    """Returns both launches, the longest of traffic, matrix work and chains of blocks, and the reduction.

    A CTA walks its keys one block after the other: a time per key, more for every 16 rows of 128 dimensions;
    many rows have a time of their own. A slot for CTAs takes its share of all keys and `tail` of what the
    last wave leaves idle, but no less than the longest CTA.
    """
    rate = coefficients.__getitem__
    gathered = 1 + features["is_gathered"] * (rate("gathered") - 1)
    hbm_s = features["hbm_bytes"] / rate("hbm_bytes_per_s")
    matrix_s = features["fragment_keys"] * gathered / rate("fragment_keys_per_s")
    key_s = rate("key_s") * (1 + features["is_many"] * (rate("many") - 1))
    key_s = (key_s + features["fragments"] * rate("fragment_s")) * gathered
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
    launch_s = features["is_split"] * rate("reduce_s") + features["is_exchanged"] * rate("exchange_s")
    partial_s = features["partial_bytes"] / rate("partial_bytes_per_s")
    return launch_s + partial_s + features["reduce_ctas"] * rate("reduce_cta_s")


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
        Coefficient("many", "factor", 0.8, 0.05, 20.0, "a key with many rows over one with few", absent=1.0),
        Coefficient(
            "gathered", "factor", 1.1, 0.5, 20.0, "keys gathered from small blocks", absent=1.0
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
            "exchange_s", "s", 5e-7, 1e-8, 2e-5, "exchange of sums between warps of the reduction", absent=0.0
        ),
        Coefficient("reduce_cta_s", "s", 2e-7, 1e-9, 3e-5, "one such CTA of the reduction", absent=0.0),
        OVERLAP,
    ),
    decode_features,
    _decode_price,
)  # fmt: skip
