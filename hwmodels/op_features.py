"""What the formulas of `op_model` need to know of an operation: tiles, waves, bytes and the longest CTA.

Everything follows from the sizes, the number of SMs and the rules by which kernels cut their work; nothing is
fitted here. Arrays have one row per point, and for products one column per tile that a library may choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ..units import DTYPE_BYTES
from .device import DeviceSpec
from .op_point import OpPoint, attention_shape, work
from .ops import expected_distinct_experts

Array = NDArray[np.float64]
Features = Mapping[str, Array]

# Tiles (rows, columns) and splits of k that GEMM libraries choose from: rows from the 8 of wgmma's narrowest
# shape, at most 128 x 256 of fp32 accumulators in the registers of one SM.
# Source: PTX ISA, wgmma m64nNk16 with N = 8 .. 256; names of cuBLAS's kernels on Hopper (nvjet 64x8 .. 256x128).
TILES = tuple(
    (rows, columns)
    for rows in (16, 32, 64, 128, 192, 256)
    for columns in (64, 128, 192, 256)
    if rows * columns <= 128 * 256
)
SPLITS = (1, 2, 4, 8)
# Rows of queries that a prefill CTA holds. Source: FlashAttention-3 (arXiv 2407.08608); kernels/attention_prefill.
PREFILL_ROWS = 128
# torch's FlashAttention-2 splits the keys where its CTAs fill less than this share of the SMs, by whole tiles.
# Source: github.com/Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp, num_splits_heuristic
FLASH_FILLED, FLASH_SPLIT_KEYS = 0.8, 128
# Keys that a CTA of a decode kernel takes at a time, and CTAs per SM that contexts are split for.
# Source: kernels/attention_decode, tuned on H200.
DECODE_KEYS, DECODE_CTAS_PER_SM, MAX_SPLITS = 32, 4, 128
PARTIAL_BYTES = 4  # partial results are fp32
ROW_UNIT = 4096
DECODE_ROWS = 16  # Source: PTX ISA, mma m16n8k16
MLA_HEAD_ROWS, MLA_CTAS_PER_SM = 64, 1  # Source: kernels/attention_mla_decode, tuned on H200


def _column(points: Sequence[OpPoint], name: str) -> Array:
    return np.array([getattr(point, name) for point in points], dtype=np.float64)[:, None]


def gemm_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns per point and candidate the FLOPs and bytes of a tile, scaled to the whole device, and waves."""
    n, k = _column(points, "n"), _column(points, "k")
    groups = np.array([[_num_groups(point)] for point in points])
    rows = np.array([[point.m * max(1, point.top_k)] for point in points]) / groups
    width = np.array([[DTYPE_BYTES[point.dtype]] for point in points])
    tiles = np.array([(*tile, split) for split in SPLITS for tile in TILES], dtype=np.float64)
    tile_m, tile_n, splits = tiles.T[:, None, :]
    num_tiles = groups * np.ceil(rows / tile_m - 1e-9) * np.ceil(n / tile_n) * splits
    depth = k / splits
    return {
        "tile_flops": 2 * tile_m * tile_n * depth * device.num_sms,
        "tile_bytes": (tile_m + tile_n) * depth * width * device.num_sms,
        "cold_bytes": tile_n * depth * width * device.num_sms,
        "waves": num_tiles / device.num_sms,
        "is_split": np.where(splits > 1, 1.0, 0.0),
        "split_bytes": np.where(splits > 1, 2 * 4 * splits * groups * rows * n, 0.0),
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
    }


def _num_groups(point: OpPoint) -> float:
    """Returns the products in one launch: the experts that get tokens, else one."""
    if not point.num_experts:
        return 1.0
    return expected_distinct_experts(point.num_experts, point.top_k, point.m)


def prefill_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the work of a mean SM and of the longest CTA, in units of the whole device's rates."""
    cuts = [_prefill_cut(point, device.num_sms) for point in points]
    num_ctas, pairs, longest = np.array(cuts, dtype=np.float64).T
    head_dim = np.array([point.head_dim for point in points], dtype=np.float64)
    longest *= device.num_sms
    return {
        "mean_flops": 4 * head_dim * pairs,
        "mean_exponentials": pairs,
        "mean_ctas": num_ctas / device.num_sms,
        "longest_flops": 4 * head_dim * longest,
        "longest_exponentials": longest,
        "longest_ctas": np.ones(len(points)),
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
    }


def _prefill_cut(point: OpPoint, num_sms: int) -> tuple[float, float, float]:
    """Returns CTAs, pairs of query and key in whole tiles, and the pairs of the longest CTA.

    A CTA holds 128 query rows of one head and walks the context and all keys up to its last row.
    """
    tiles = ceil(point.query_len / PREFILL_ROWS)
    keys = tiles * point.context_len + PREFILL_ROWS * tiles * (tiles + 1) / 2
    longest = float(point.context_len + PREFILL_ROWS * tiles)
    heads = point.batch * point.num_q_heads
    num_ctas = heads * tiles
    if point.implementation == "sdpa-flash" and num_ctas < FLASH_FILLED * num_sms:
        splits = min(num_sms // num_ctas, ceil(longest / FLASH_SPLIT_KEYS))
        num_ctas, longest = num_ctas * splits, longest / splits
    return num_ctas, PREFILL_ROWS * heads * keys, PREFILL_ROWS * longest


def decode_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns traffic, matrix work in whole fragments, the longest CTA's bytes and what splitting adds."""
    cuts = [_decode_cut(point, device.num_sms) for point in points]
    num_ctas, splits, flops, longest_share = np.array(cuts, dtype=np.float64).T
    needed = [work(point) for point in points]
    hbm_bytes = np.array([op.hbm_bytes for op in needed])
    is_split = np.where(splits > 1, 1.0, 0.0)
    rows = np.array([point.batch * point.query_len * point.num_q_heads * point.head_dim for point in points])
    return {
        "hbm_bytes": hbm_bytes,
        "mean_flops": flops,
        "mean_ctas": num_ctas / device.num_sms,
        "longest_bytes": hbm_bytes * longest_share,
        "is_split": is_split,
        "partial_bytes": is_split * 2 * PARTIAL_BYTES * splits * rows,
    }


def _decode_cut(point: OpPoint, num_sms: int) -> tuple[float, float, float, float]:
    """Returns CTAs, parts per request, FLOPs of whole fragments, and the longest CTA's share of the keys.

    Every request is cut into as many parts, whatever its context, so that the grid fills the SMs.
    """
    shape = attention_shape(point)
    if point.op == "mla_decode":
        rows = min(MLA_HEAD_ROWS, point.num_q_heads)
        groups, ctas_per_sm = ceil(point.num_q_heads / rows), MLA_CTAS_PER_SM
    else:
        rows = point.query_len * point.num_q_heads // point.num_kv_heads
        groups, ctas_per_sm = point.num_kv_heads, DECODE_CTAS_PER_SM
    rows = ceil(rows / DECODE_ROWS) * DECODE_ROWS
    wanted = ceil(ctas_per_sm * num_sms / (point.batch * groups))
    key_tiles = ceil(point.longest_context / DECODE_KEYS)
    splits = max(1, min(wanted, key_tiles, MAX_SPLITS))
    keys = ceil(key_tiles / splits) * DECODE_KEYS
    all_keys = point.batch * groups * point.context_len
    flops = 2.0 * all_keys * rows * (shape.qk_head_dim + shape.v_head_dim)
    return point.batch * groups * splits, splits, flops, keys / all_keys


def stream_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the bytes, and the length of a row in units of 4,096 elements."""
    return {
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
        "row": np.array([point.n / ROW_UNIT for point in points]),
    }
