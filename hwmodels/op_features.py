"""What the formulas of `op_model` need to know of an operation: tiles, waves, bytes and the longest CTA.

Everything follows from the sizes, the number of SMs and the rules by which kernels cut their work; nothing is
fitted here. Arrays have one row per point, and for products one column per tile that a library may choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, erf, sqrt

import numpy as np
from numpy.typing import NDArray

from ..units import DTYPE_BYTES
from .device import DeviceSpec
from .op_point import EIGHT_BIT, OpPoint, attention_shape, work
from .ops import expected_distinct_experts

Array = NDArray[np.float64]
Features = Mapping[str, Array]
Candidate = tuple[float, float, float]
"""Rows and columns of a tile, and the parts that k is split into."""

# Tiles (rows, columns) of cuBLAS: 128 x 256 of fp32 accumulators fit one SM's registers. There are so many
# that an equal share of the rows is always among them, to wgmma's step of 8: 257 rows take two of 136.
# Source: PTX ISA, wgmma m64nNk16 with N = 8, 16 .. 256; names of cuBLAS's Hopper kernels (nvjet 128x136).
_ACCUMULATORS = 128 * 256
CUBLAS_TILES = tuple(
    (rows, columns)
    for rows in (64, 96, 128, 160, 192, 256)
    for columns in (64, 128, 192, 256)
    if rows * columns <= _ACCUMULATORS
)
ROW_STEP = 8
SPLITS = (1, 2, 4, 8)
# Ours: whole tiles over TMA; for few 16-bit rows one tile of rows, narrow or wide, and k split; for mixtures
# tiles of about as many rows as an expert has tokens.
# Source: kernels/gemm, kernels/gemm_split_k, kernels/moe, the winners of tuning on H200.
TMA_TILES = ((64, 256), (128, 128), (128, 256), (256, 128))
STREAMING_COLUMNS, STREAMING_SPLITS, STREAMING_ROWS = (32, 128), (1, 2, 4), (16, 64)
EXPERT_COLUMNS, EXPERT_ROWS = (128, 256), (16, 128)
# Rows up to which the streaming kernel runs, and from which the whole tiles do; between them the faster one.
MOST_STREAMING_ROWS, LEAST_TILED_ROWS = 64, 33
# Query rows of a prefill CTA, keys that it takes at a time, and CTAs that fit one SM.
# Source: FlashAttention-3 (arXiv 2407.08608); kernels/attention_prefill, the winner of tuning on H200.
PREFILL_ROWS, PREFILL_KEYS, PREFILL_CTAS_PER_SM = 128, 64, 2
# torch's FlashAttention-2: its split kernel holds 64 rows and walks 128 keys at a time (256 if they have 64
# dimensions); it runs where CTAs fill less than 0.8 of two per SM.
# Source: github.com/Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp, num_splits_heuristic
FLASH_ROWS, FLASH_KEYS, FLASH_CTAS_PER_SM, FLASH_FILLED = 64, 128, 2, 0.8
FLASH_EFFICIENCY = 0.85  # of the best split's, that the chosen one reaches
# Keys that a CTA of a decode kernel takes at a time, and CTAs per SM that contexts are split for.
# Source: kernels/attention_decode, tuned on H200.
DECODE_KEYS, DECODE_CTAS_PER_SM, MAX_SPLITS = 32, 4, 128
PARTIAL_BYTES = 4  # partial results are fp32
ROW_UNIT = 4096
DECODE_ROWS, MAX_DECODE_ROWS = 16, 256  # Source: PTX ISA, mma m16n8k16; kernels/attention_decode
# Heads that a CTA of latent attention holds: where they fill whole tiles, Hopper's kernel runs, once per SM.
# Source: kernels/attention_mla_hopper and kernels/attention_mla_decode
MLA_HEAD_ROWS = 64


# Experts that all get equally many rows give a ratio a rounding error above a whole number of tiles.
_ROUNDING = 1e-9


def _column(points: Sequence[OpPoint], name: str) -> Array:
    return np.array([getattr(point, name) for point in points], dtype=np.float64)[:, None]


def gemm_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns per point and candidate the FLOPs and bytes of a tile, scaled to the whole device, and waves.

    Points have as many candidates as the one with most; what lacks is filled up with its first.
    """
    sms = device.num_sms
    n, k = _column(points, "n"), _column(points, "k")
    groups = np.array([[_num_groups(point)] for point in points])
    rows = np.array([[point.m * max(1, point.top_k)] for point in points]) / groups
    width = np.array([[DTYPE_BYTES[point.dtype]] for point in points])
    offered = [_candidates(point, row) for point, row in zip(points, rows[:, 0], strict=True)]
    most = max(len(candidates) for candidates in offered)
    filled = [[*candidates, *[candidates[0]] * (most - len(candidates))] for candidates in offered]
    tile_m, tile_n, splits = np.array(filled, dtype=np.float64).transpose(2, 0, 1)
    depth = k / splits
    return {
        "tile_flops": 2 * tile_m * tile_n * depth * sms,
        "tile_bytes": (tile_m + tile_n) * depth * width * sms,
        "cold_bytes": tile_n * depth * width * sms,
        "waves": groups * _row_tiles(points, rows, tile_m) * np.ceil(n / tile_n) * splits / sms,
        "is_split": np.where(splits > 1, 1.0, 0.0),
        "split_bytes": np.where(splits > 1, 2 * PARTIAL_BYTES * splits * groups * rows * n, 0.0),
        "hbm_bytes": np.array([[work(point).hbm_bytes] for point in points]),
    }


def _row_tiles(points: Sequence[OpPoint], rows: Array, tile_m: Array) -> Array:
    """Returns the tiles along the rows of one product, for mixtures the mean over their experts."""
    tiles = np.ceil(rows / tile_m - _ROUNDING)
    for place, point in enumerate(points):
        if point.num_experts:
            share = point.top_k / point.num_experts
            tiles[place] = _expected_tiles(float(rows[place, 0]), float(tile_m[place, 0]), share)
    return tiles


def _expected_tiles(mean_rows: float, tile: float, share: float) -> float:
    """Returns the mean of ceil(rows / tile) over experts that get `share` of all tokens each, at random.

    The number of rows is binomial, taken as normal: sum over j of P(rows > j tile), 1 for j = 0.
    """
    deviation = sqrt(mean_rows * (1 - share)) + _ROUNDING
    last = ceil((mean_rows + 6 * deviation) / tile)
    return 1.0 + sum(
        (1 - erf((j * tile + 0.5 - mean_rows) / deviation / sqrt(2))) / 2 for j in range(1, last + 1)
    )


def _candidates(point: OpPoint, rows: float) -> list[Candidate]:
    """Returns the (rows, columns, splits) that the point's library may run `rows` rows with."""
    if point.implementation != "triton":
        return [(_even_rows(rows, most), n, split) for split in SPLITS for most, n in CUBLAS_TILES]
    if point.num_experts:
        mean_rows = point.m * point.top_k // point.num_experts
        tile_rows = _power_of_two(mean_rows, EXPERT_ROWS)
        return [(tile_rows, max(EXPERT_COLUMNS) if tile_rows in EXPERT_ROWS else min(EXPERT_COLUMNS), 1)]
    tiled: list[Candidate] = [(m, n, 1) for m, n in TMA_TILES]
    if point.dtype in EIGHT_BIT or point.m > MOST_STREAMING_ROWS:
        return tiled
    tile_m = _power_of_two(rows, STREAMING_ROWS)
    streaming: list[Candidate] = [(tile_m, n, s) for n in STREAMING_COLUMNS for s in STREAMING_SPLITS]
    return streaming + tiled if point.m >= LEAST_TILED_ROWS else streaming


def _even_rows(rows: float, most: int) -> float:
    """Returns the rows of a tile that cuts all rows into equal parts of at most `most`."""
    parts = ceil(rows / most - _ROUNDING)
    return ceil(rows / parts / ROW_STEP - _ROUNDING) * ROW_STEP


def _power_of_two(rows: float, bounds: tuple[int, int]) -> int:
    """Returns the power of two at or above `rows`, within bounds."""
    return min(bounds[1], max(bounds[0], 1 << max(0, ceil(rows) - 1).bit_length()))


def _num_groups(point: OpPoint) -> float:
    """Returns the products in one launch: the experts that get tokens, else one."""
    if not point.num_experts:
        return 1.0
    return expected_distinct_experts(point.num_experts, point.top_k, point.m)


def prefill_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the work of a mean SM and of the longest CTA, in units of the whole device's rates."""
    cuts = [_prefill_cut(point, device.num_sms) for point in points]
    num_ctas, splits, pairs, longest = np.array(cuts, dtype=np.float64).T
    head_dim = np.array([point.head_dim for point in points], dtype=np.float64)
    longest *= device.num_sms
    waves = num_ctas / (PREFILL_CTAS_PER_SM * device.num_sms)
    return {
        "idle_share": np.minimum(np.ceil(waves) / waves, 2.0) - 1,
        "mean_flops": 4 * head_dim * pairs,
        "mean_exponentials": pairs,
        "mean_ctas": num_ctas / device.num_sms,
        "longest_flops": 4 * head_dim * longest,
        "longest_exponentials": longest,
        "longest_ctas": np.ones(len(points)),
        "num_launches": np.where(splits > 1, 2.0, 1.0),
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
    }


def _prefill_cut(point: OpPoint, num_sms: int) -> tuple[float, float, float, float]:
    """Returns CTAs, splits of the keys, pairs of query and key in whole tiles, and those of the longest CTA.

    A CTA holds 128 query rows of one head and walks the context and all keys up to its last row.
    """
    heads, rows, splits = point.batch * point.num_q_heads, PREFILL_ROWS, 1
    if point.implementation == "sdpa-flash":
        num_ctas = heads * ceil(point.query_len / FLASH_ROWS)
        splits = flash_splits(num_ctas, point.context_len + point.query_len, point.head_dim, num_sms)
        rows = PREFILL_ROWS if splits == 1 else FLASH_ROWS
    tiles = ceil(point.query_len / rows)
    # Keys up to the end of each tile of rows; the last tile stops at the last key's block.
    step = PREFILL_ROWS if point.implementation == "sdpa-cudnn" else PREFILL_KEYS
    beyond = max(0, rows * tiles - ceil(point.query_len / step) * step)
    keys = tiles * point.context_len + rows * tiles * (tiles + 1) / 2 - beyond
    longest = (point.context_len + rows * tiles - beyond) / splits
    return heads * tiles * splits, splits, rows * heads * keys, rows * longest


def flash_splits(num_ctas: int, num_keys: int, head_dim: int, num_sms: int) -> int:
    """Returns into how many parts torch's FlashAttention-2 cuts the keys, so that the CTAs fill the SMs.

    The fewest parts whose last wave is nearly as full as the best split's.
    """
    slots, blocks = FLASH_CTAS_PER_SM * num_sms, ceil(num_keys / _flash_keys(head_dim))
    if num_ctas >= FLASH_FILLED * slots:
        return 1
    eligible = [
        splits
        for splits in range(1, min(MAX_SPLITS, slots, blocks) + 1)
        if splits == 1 or ceil(blocks / splits) != ceil(blocks / (splits - 1))
    ]
    filled = {splits: num_ctas * splits / slots / ceil(num_ctas * splits / slots) for splits in eligible}
    return next(s for s in eligible if filled[s] >= FLASH_EFFICIENCY * max(filled.values()))


def _flash_keys(head_dim: int) -> int:
    return FLASH_KEYS if head_dim > 64 else 2 * FLASH_KEYS


def decode_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns traffic, matrix work in whole fragments, the longest CTA's bytes and what splitting adds."""
    cuts = [_decode_cut(point, device.num_sms) for point in points]
    num_ctas, splits, pairs, longest_keys, rows = np.array(cuts, dtype=np.float64).T
    shapes = [attention_shape(point) for point in points]
    group_bytes = [shape.kv_bytes_per_token / shape.num_kv_heads for shape in shapes]
    outputs = [
        point.batch * point.query_len * point.num_q_heads * shape.v_head_dim
        for point, shape in zip(points, shapes, strict=True)
    ]
    is_split = np.where(splits > 1, 1.0, 0.0)
    return {
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
        "pairs": pairs,
        "mean_ctas": num_ctas / device.num_sms,
        "longest_keys": longest_keys,
        "longest_bytes": longest_keys * np.array(group_bytes),
        "longest_pairs": longest_keys * rows,
        "is_split": is_split,
        "partial_bytes": is_split * 2 * PARTIAL_BYTES * splits * np.array(outputs, dtype=np.float64),
    }


def _decode_cut(point: OpPoint, num_sms: int) -> tuple[float, float, float, float, float]:
    """Returns CTAs, parts per request, pairs of row and key, the longest CTA's keys, and the rows of a CTA.

    Every request is cut into as many parts, whatever its context, so that the grid fills the SMs.
    """
    groups, rows = point.num_kv_heads, point.query_len * point.num_q_heads // point.num_kv_heads
    ctas_per_sm, block = DECODE_CTAS_PER_SM, DECODE_KEYS
    if point.op == "mla_decode":
        is_whole = point.num_q_heads % MLA_HEAD_ROWS == 0
        rows = min(MLA_HEAD_ROWS, point.num_q_heads)
        groups = ceil(point.num_q_heads / rows)
        ctas_per_sm, block = (1, 64) if is_whole else (2, 32)
    rows = _power_of_two(rows, (DECODE_ROWS, MAX_DECODE_ROWS))
    if point.implementation == "sdpa-flash":
        block = _flash_keys(point.head_dim)
        splits = flash_splits(point.batch * groups, point.context_len, point.head_dim, num_sms)
        rows = FLASH_ROWS if splits > 1 else PREFILL_ROWS
    else:
        wanted = ceil(ctas_per_sm * num_sms / (point.batch * groups))
        splits = max(1, min(wanted, ceil(point.longest_context / block), MAX_SPLITS))
    longest_keys = ceil(ceil(point.longest_context / block) / splits) * block
    pairs = float(point.batch * point.context_len * groups * rows)
    return point.batch * groups * splits, splits, pairs, longest_keys, rows


def stream_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns the bytes, and the length of a row in units of 4,096 elements."""
    return {
        "hbm_bytes": np.array([work(point).hbm_bytes for point in points]),
        "row": np.array([point.n / ROW_UNIT for point in points]),
    }
