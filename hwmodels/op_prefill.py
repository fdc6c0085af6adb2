"""Attention of prefill chunks and of images: tiles of query rows that walk their keys, unequally long.

A CTA's work is matrix FLOPs and exponentials, one after the other. All SMs share it, but the last CTA may end
long after the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from .device import DeviceSpec
from .flash_splits import FLASH_ROWS, flash_splits
from .op_form import (
    CORNER,
    LAUNCH,
    MATRIX,
    NEVER,
    Array,
    Coefficient,
    Coefficients,
    Features,
    Form,
    Priced,
    column,
    power_of_two,
    smooth_max,
)
from .op_point import OpPoint, attention_shape, work

# Query rows of a prefill CTA, keys that it takes at a time, and CTAs that fit one SM.
# Source: FlashAttention-3 (arXiv 2407.08608); kernels/attention_prefill, the winner of tuning on H200.
PREFILL_ROWS, PREFILL_KEYS, PREFILL_CTAS_PER_SM = 128, 64, 2
# Heads are filled up to the dimensions that a kernel was compiled for.
# Source: github.com/Dao-AILab/flash-attention, csrc/flash_attn: 32, 64, 96, 128; measured alike on cuDNN's.
_DIM_STEP = 32
_LEAST_DIM, _MOST_DIM = 16, 256  # of ours, powers of two


class _Cut(NamedTuple):
    """CTAs, parts that keys are split into, pairs of query and key in tiles, those of the longest CTA."""

    num_ctas: int
    splits: int
    pairs: float
    longest: float


def prefill_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the work of a mean SM and of the longest CTA, in units of the whole device's rates."""
    cuts = [_prefill_cut(point, device.num_sms) for point in points]
    num_ctas, splits, pairs, longest = np.array(cuts, dtype=np.float64).T
    head_dim = _filled_dims(points)
    longest = longest * device.num_sms
    waves = num_ctas / (PREFILL_CTAS_PER_SM * device.num_sms)
    rereads = [_reread_bytes(point, cut, device) for point, cut in zip(points, cuts, strict=True)]
    return {
        "idle_share": np.minimum(np.ceil(waves) / waves, 2.0) - 1,
        "mean_flops": 4 * head_dim * pairs,
        "mean_exponentials": pairs,
        "mean_ctas": num_ctas / device.num_sms,
        "longest_flops": 4 * head_dim * longest,
        "longest_exponentials": longest,
        "num_launches": np.where(splits > 1, 2.0, 1.0),
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
        "reread_bytes": np.array(rereads),
    }


def _filled_dims(points: Sequence[OpPoint]) -> Array:
    """Returns the dimensions of a head that kernels compute with."""
    dims = column(points, "head_dim")
    if points[0].implementation == "triton":
        return power_of_two(dims, _LEAST_DIM, _MOST_DIM)
    return np.asarray(np.ceil(dims / _DIM_STEP) * _DIM_STEP)


def _prefill_cut(point: OpPoint, num_sms: int) -> _Cut:
    """Returns how a kernel cuts chunks, or images: a CTA holds 128 query rows of one head.

    It walks the context and all keys up to its last row; of an image, all keys.
    """
    heads, rows, splits = point.batch * point.num_q_heads, PREFILL_ROWS, 1
    if point.implementation == "sdpa-flash" and point.op == "attention_prefill":
        num_ctas = heads * ceil(point.query_len / FLASH_ROWS)
        splits = flash_splits(num_ctas, point.context_len + point.query_len, point.head_dim, num_sms)
        rows = PREFILL_ROWS if splits == 1 else FLASH_ROWS
    tiles = ceil(point.query_len / rows)
    # Keys up to the end of each tile of rows; the last tile stops at the last key's block.
    step = PREFILL_ROWS if point.implementation == "sdpa-cudnn" else PREFILL_KEYS
    last_key = ceil(point.query_len / step) * step
    if point.op == "attention_vision":
        return _Cut(heads * tiles, 1, float(rows * heads * tiles * last_key), float(rows * last_key))
    beyond = max(0, rows * tiles - last_key)
    keys = tiles * point.context_len + rows * tiles * (tiles + 1) / 2 - beyond
    longest = (point.context_len + rows * tiles - beyond) / splits
    return _Cut(heads * tiles * splits, splits, rows * heads * keys, rows * longest)


def _reread_bytes(point: OpPoint, cut: _Cut, device: DeviceSpec) -> float:
    """Returns the bytes of keys and values that come from HBM again, because L2 has lost them in between.

    CTAs of all heads of one request run side by side. Those that share keys read them together; each such
    group reads all its keys. Of what L2 cannot hold of the keys in flight, each group but the first misses
    its part: 1 / (1 + (L2 / keys in flight)^2).
    """
    keys = point.context_len + point.query_len
    kv_bytes = keys * attention_shape(point).kv_bytes_per_token
    in_flight = min(cut.num_ctas, PREFILL_CTAS_PER_SM * device.num_sms)
    heads = min(point.num_q_heads, in_flight)
    kv_heads = max(1.0, heads * point.num_kv_heads / point.num_q_heads)
    loaded_bytes = cut.pairs / PREFILL_ROWS * kv_bytes / keys / point.num_kv_heads
    groups_bytes = loaded_bytes * kv_heads / in_flight
    held_bytes = kv_bytes * kv_heads / point.num_kv_heads
    missing = 1 / (1 + (device.l2_bytes / held_bytes) ** 2)
    return missing * max(0.0, groups_bytes - point.batch * kv_bytes)


def _prefill_price(features: Features, coefficients: Coefficients) -> Priced:
    """Returns launches, the work of a mean SM or the longest CTA alone, and traffic that does not hide.

    Alone on an SM a CTA reaches `cta_share` of the SM's rates under full load. Beside the mean, `tail` of the
    longest CTA and `wave_tail` of a partly filled last wave count: what list scheduling leaves idle.
    Source: Graham 1969, doi 10.1137/0117039 (total / machines + the longest job bounds any list schedule).
    """
    rate = coefficients.__getitem__
    matrix_s = features["mean_flops"] / rate("matrix_flops_per_s")
    vector_s = features["mean_exponentials"] / rate("exponentials_per_s")
    start_s = features["mean_ctas"] * rate("cta_s")
    mean_s = (matrix_s + vector_s + start_s) * (1 + rate("wave_tail") * features["idle_share"])
    longest_s = _longest_s(features, coefficients)
    alone_s = longest_s / rate("cta_share")
    launch_s = features["num_launches"] * rate("launch_s")
    hbm_s = features["hbm_bytes"] / rate("hbm_bytes_per_s")
    hbm_s = hbm_s + features["reread_bytes"] / rate("reread_bytes_per_s")
    parts = {
        "matrix": matrix_s,
        "vector": vector_s,
        "hbm": hbm_s,
        # The longest CTA binds only where it is longer than the mean SM's work.
        "latency": np.where(alone_s > mean_s, alone_s, 0.0),
        "launch": launch_s + start_s,
    }
    total_s = smooth_max(CORNER, mean_s + rate("tail") * longest_s, alone_s)
    return Priced(launch_s + total_s + hbm_s, parts)


def _longest_s(features: Features, coefficients: Coefficients) -> Array:
    """Returns the longest CTA's time at one SM's share of the device's rates."""
    rate = coefficients.__getitem__
    matrix_s = features["longest_flops"] / rate("matrix_flops_per_s")
    return matrix_s + features["longest_exponentials"] / rate("exponentials_per_s") + rate("cta_s")


PREFILL = Form(
    "prefill",
    (
        LAUNCH,
        MATRIX,
        Coefficient("exponentials_per_s", "1/s", 4e12, 3e11, 1e15, "softmax, as exponentials"),
        Coefficient("cta_s", "s", 3e-7, 1e-9, 3e-5, "start and end of one CTA", absent=0.0),
        Coefficient("cta_share", "share", 0.7, 0.1, 1.5, "share of an SM's rates that one CTA alone reaches"),
        Coefficient(
            "tail", "share", 0.2, 0.01, 1.0, "how much of the longest CTA comes after the rest", absent=0.0
        ),
        Coefficient(
            "wave_tail", "share", 0.2, 0.01, 1.0, "how much of a last wave's idle part counts", absent=0.0
        ),
        Coefficient(
            "hbm_bytes_per_s", "B/s", 8e12, 2e11, 1e14,
            "what of the traffic arithmetic does not hide", absent=NEVER,
        ),
        Coefficient(
            "reread_bytes_per_s", "B/s", 8e12, 2e11, 1e15, "keys read again that L2 has lost", absent=NEVER
        ),
    ),
    prefill_features,
    _prefill_price,
)  # fmt: skip
