"""Products of matrices: tiles that run in whole waves, traffic beside them, and the power limit above them.

Dense, 8-bit, block-scaled, weight-only and grouped products, and the patch embedding, which is one. Which
tiles a library has is known; which of them it picks is taken to be the fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..units import DTYPE_BYTES
from .device import DeviceSpec
from .expert_load import ExpertLoad
from .op_form import (
    CORNER,
    HBM,
    LAUNCH,
    MATRIX,
    NEVER,
    OVERLAP,
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
from .op_point import ACTIVATION_DTYPE, EIGHT_BIT, INT_MM_OUT, OpPoint, work

# Tiles (rows, columns) of cuBLAS: 128 x 256 of fp32 accumulators fit one SM's registers. There are so many
# that an equal share of the rows is always among them, to wgmma's step of 8: 257 rows take two of 136.
# Source: PTX ISA, wgmma m64nNk16 with N = 8, 16 .. 256; names of cuBLAS's Hopper kernels (nvjet 128x136).
_ACCUMULATORS = 128 * 256
_CUBLAS_TILES = tuple(
    (rows, columns)
    for rows in (64, 128, 192, 256)
    for columns in (64, 128, 192, 256)
    if rows * columns <= _ACCUMULATORS
)
_ROW_STEP = 8
_SPLITS = (1, 2, 4)
# Integer products run on kernels from before Hopper: whole tiles of powers of two, k never split.
# Source: measured, torch._int_mm on H200 reaches half of the integer peak, as mma.sync does.
_INT8_TILES = tuple(
    (rows, columns)
    for rows in (64, 128, 256)
    for columns in (64, 128, 256)
    if rows * columns <= _ACCUMULATORS
)
# A tile of block-scaled products is as wide as a block of scales. Source: DeepSeek-V3, arXiv 2412.19437, 3.3.
_BLOCK_SCALED_TILES = ((128, 128),)
# Ours: whole tiles over TMA; for few 16-bit rows one tile of rows, narrow or wide, and k split; for mixtures
# tiles of about as many rows as an expert has tokens, or more.
# Source: kernels/gemm, kernels/gemm_split_k, kernels/gemm_weight_only, kernels/moe, as tuned on H200.
_TMA_TILES = ((64, 256), (128, 128), (128, 256), (256, 128))
_SMALL_TILES = ((64, 64), (64, 128))  # of 16-bit products, which take twice as many columns of k at a time
_SCALED_TILES = ((192, 128),)  # of block-scaled products: three boxes of 64 rows
_STEP_BYTES = 128  # of k, that a stage of the pipeline holds of every row
_STREAMING = tuple((64, columns, splits) for columns in (32, 128) for splits in (1, 2, 4))
_WEIGHT_ONLY = tuple((64, columns, splits) for columns in (32, 64, 128) for splits in (1, 2, 4, 8))
_LEAST_ROWS = 16  # of a tile
_EXPERT_ROWS = 128  # of a tile, at most
# Rows up to which the streaming kernel runs, and from which the whole tiles do; between them the faster one.
MOST_STREAMING_ROWS, LEAST_TILED_ROWS = 64, 33
# Rows that do not begin at multiples of this cannot be copied by TMA: older kernels multiply them.
# Source: CUDA Driver API, cuTensorMapEncodeTiled (globalStrides are multiples of 16 bytes).
_ALIGNMENT = 16
_PARTIAL_BYTES = 4  # partial results are fp32
# A mean that counts whole tiles may lie a rounding error above one.
_ROUNDING = 1e-9


class _Tiles(NamedTuple):
    """Tiles that a library may run points with, (num_points, num_tiles) or broadcast to that."""

    rows: Array
    columns: Array
    splits: Array
    is_usable: Array


def gemm_features(points: Sequence[OpPoint], device: DeviceSpec) -> Features:
    """Returns per point and tile its FLOPs and bytes, scaled to the whole device, and the waves of tiles."""
    sms = device.num_sms
    n, k = column(points, "n")[:, None], column(points, "k")[:, None]
    loads = [ExpertLoad.of(point) for point in points]
    rows = np.array([[load.num_rows] for load in loads])
    tiles = _tiles(points[0], np.array([[load.tile_rows] for load in loads]))
    depth = k / tiles.splits
    in_bytes, weight_bytes, out_bytes = _widths(points[0])
    row_tiles = _row_tiles(loads, tiles.rows)
    is_split = np.where(tiles.splits > 1, 1.0, 0.0)
    moved = [work(point).hbm_bytes for point in points]
    unread = [load.num_unread_experts * point.n * point.k for load, point in zip(loads, points, strict=True)]
    return {
        "steps": _steps(points[0], tiles, depth, in_bytes),
        "tile_flops": 2 * tiles.rows * tiles.columns * depth * sms,
        "tile_bytes": (tiles.rows * in_bytes + tiles.columns * weight_bytes) * depth * sms,
        "cold_bytes": tiles.columns * depth * weight_bytes * sms,
        "expanded": tiles.columns * depth * sms * float(points[0].op == "gemm_weight_only"),
        "stored_bytes": tiles.rows * tiles.columns * out_bytes * sms,
        "waves": row_tiles * np.ceil(n / tiles.columns) * tiles.splits / sms,
        "is_split": is_split,
        "split_bytes": is_split * 2 * _PARTIAL_BYTES * tiles.splits * rows * n,
        "hbm_bytes": (np.array(moved) - np.array(unread) * weight_bytes)[:, None],
        "is_unaligned": (column(points, "k")[:, None] * in_bytes % _ALIGNMENT > 0).astype(np.float64),
        "is_usable": tiles.is_usable,
        "is_sustained": column(points, "sustained")[:, None],
    }


def _widths(point: OpPoint) -> tuple[float, float, float]:
    """Returns the bytes of one activation, one weight and one result."""
    activation = ACTIVATION_DTYPE if point.op == "gemm_weight_only" else point.dtype
    is_int_mm = point.op == "gemm" and point.implementation == "cublas" and point.dtype == "int8"
    out = INT_MM_OUT if is_int_mm else ACTIVATION_DTYPE
    return DTYPE_BYTES[activation], DTYPE_BYTES[point.dtype], DTYPE_BYTES[out]


def _tiles(point: OpPoint, rows: Array) -> _Tiles:
    """Returns the tiles for products of `rows` rows (num_points, 1) of the library that runs `point`."""
    if point.op == "grouped_gemm":
        fitting = power_of_two(rows, _LEAST_ROWS, _EXPERT_ROWS)
        tile_rows = np.hstack([np.minimum(times * fitting, _EXPERT_ROWS) for times in (1, 2, 4, 8)])
        is_wide = (tile_rows == _LEAST_ROWS) | (tile_rows == _EXPERT_ROWS)
        return _Tiles(tile_rows, np.where(is_wide, 256.0, 128.0), np.ones((1, 1)), np.ones_like(rows))
    if point.implementation != "triton":
        whole = _BLOCK_SCALED_TILES if point.op == "gemm_block_scaled" else _INT8_TILES
        if point.dtype == "int8" or point.op == "gemm_block_scaled":
            return _Tiles(*_grid([(m, n, 1) for m, n in whole]), np.ones_like(rows))
        most, columns, splits = _grid([(m, n, s) for m, n in _CUBLAS_TILES for s in _SPLITS])
        return _Tiles(_even_rows(rows, most), columns, splits, np.ones_like(rows))
    if point.op == "gemm_weight_only":
        most, columns, splits = _grid(_WEIGHT_ONLY)
        return _Tiles(power_of_two(rows, _LEAST_ROWS, 64) + 0 * most, columns, splits, np.ones_like(rows))
    tiled = [(m, n, 1) for m, n in (_SCALED_TILES if point.op == "gemm_block_scaled" else _TMA_TILES)]
    if point.op != "gemm" or point.dtype in EIGHT_BIT:
        return _Tiles(*_grid(tiled), np.ones_like(rows))
    tiled += [(m, n, 1) for m, n in _SMALL_TILES]
    most, columns, splits = _grid([*tiled, *_STREAMING])
    is_whole = np.arange(most.shape[1]) < len(tiled)
    tile_rows = np.where(is_whole, most, power_of_two(rows, _LEAST_ROWS, 64))
    is_usable = np.where(is_whole, rows >= LEAST_TILED_ROWS, rows <= MOST_STREAMING_ROWS)
    return _Tiles(tile_rows, columns, splits, is_usable.astype(np.float64))


def _steps(point: OpPoint, tiles: _Tiles, depth: Array, in_bytes: float) -> Array:
    """Returns the steps of our 16-bit pipelines along k; no others were seen to wait for theirs."""
    if point.op != "gemm" or point.implementation != "triton" or point.dtype in EIGHT_BIT:
        return np.zeros((1, 1))
    is_small = tiles.rows * tiles.columns <= max(m * n for m, n in _SMALL_TILES)
    return np.asarray(depth * in_bytes / _STEP_BYTES / np.where(is_small, 2.0, 1.0))


def _grid(shapes: Sequence[tuple[int, int, int]]) -> tuple[Array, Array, Array]:
    rows, columns, splits = np.array(shapes, dtype=np.float64).T[:, None, :]
    return rows, columns, splits


def _even_rows(rows: Array, most: Array) -> Array:
    """Returns the rows of tiles that cut all rows into equal parts of at most `most`."""
    parts = np.ceil(rows / most - _ROUNDING)
    return np.asarray(np.ceil(rows / parts / _ROW_STEP - _ROUNDING) * _ROW_STEP)


def _row_tiles(loads: Sequence[ExpertLoad], tile_rows: Array) -> Array:
    """Returns the tiles along the rows of all products of a launch, (num_points, num_tiles)."""
    if loads[0].is_dense:
        return np.ceil(np.array([[load.num_rows] for load in loads]) / tile_rows - _ROUNDING)
    return np.array([[load.num_tiles(float(rows[0]))] for load, rows in zip(loads, tile_rows, strict=True)])


def _gemm_price(features: Features, coefficients: Coefficients) -> Priced:
    """Returns the fastest tile's time: whole waves and bytes from HBM overlap, under the power limit.

    One wave: a tile's FLOPs at one SM's share of the matrix rate, its operands at one SM's share of the
    operand rate, or the first touch of its weights, whichever is longest, with a time for every step of its
    pipeline (what is in flight is what its stages hold); narrow weights are first expanded;
    then results are stored, and a time to fill and drain. Power: every FLOP and every byte costs energy, and
    the board may draw so much. At the limit the clock falls, so time is at least FLOPs / sustained rate +
    bytes / the rate at which traffic alone would meet it, and `heat` times that once the board is warm.
    """
    rate = coefficients.__getitem__
    tile = _tile_parts(features, coefficients)
    waves = np.ceil(features["waves"] - _ROUNDING)
    split_s = features["is_split"] * rate("split_s") + features["split_bytes"] / rate("partial_bytes_per_s")
    busy_s = np.maximum(tile["matrix"] + tile["vector"], tile["operands"]) + tile["stored"]
    waves_s = waves * (busy_s + rate("tile_s")) + split_s
    parts = {
        "matrix": waves * tile["matrix"],
        "vector": waves * tile["vector"],
        "l2": waves * (tile["operands"] + tile["stored"]),
        "hbm": np.broadcast_to(features["hbm_bytes"] / rate("hbm_bytes_per_s"), waves_s.shape),
        "power": _power_s(features, coefficients),
        "launch": rate("launch_s") + waves * rate("tile_s") + split_s,
    }
    total_s = smooth_max(CORNER, smooth_max(rate("overlap"), waves_s, parts["hbm"]), parts["power"])
    total_s = np.where(features["is_usable"] > 0, total_s, np.inf)
    chosen = (np.arange(len(total_s)), total_s.argmin(axis=1))
    picked = {name: np.broadcast_to(part, total_s.shape)[chosen] for name, part in parts.items()}
    return Priced(rate("launch_s") + total_s[chosen], picked)


def _tile_parts(features: Features, coefficients: Coefficients) -> dict[str, Array]:
    """Returns the seconds of one wave of tiles at every unit, each alone."""
    rate = coefficients.__getitem__
    unaligned = 1 + features["is_unaligned"] * (rate("unaligned") - 1)
    operands_s = np.maximum(
        features["tile_bytes"] / rate("operand_bytes_per_s"),
        features["cold_bytes"] / rate("cold_bytes_per_s"),
    )
    return {
        "matrix": features["tile_flops"] / rate("matrix_flops_per_s") * unaligned,
        "vector": features["expanded"] / rate("expanded_per_s"),
        "operands": (operands_s + features["steps"] * rate("step_s")) * unaligned,
        "stored": features["stored_bytes"] / rate("stored_bytes_per_s"),
    }


def _power_s(features: Features, coefficients: Coefficients) -> Array:
    """Returns the least time that the power limit allows."""
    rate = coefficients.__getitem__
    flops_s = features["waves"] * features["tile_flops"] / rate("sustained_flops_per_s")
    bytes_s = features["hbm_bytes"] / rate("sustained_bytes_per_s")
    return np.asarray((flops_s + bytes_s) * (1 + features["is_sustained"] * (rate("heat") - 1)))


GEMM = Form(
    "gemm",
    (
        LAUNCH,
        MATRIX,
        Coefficient(
            "sustained_flops_per_s", "FLOP/s", 7e14, 1e13, 3e15,
            "matrix units where the power limit sets the clock", absent=NEVER,
        ),
        Coefficient(
            "sustained_bytes_per_s", "B/s", 2e13, 1e12, 1e15,
            "HBM traffic that would take all the power", absent=NEVER,
        ),
        Coefficient(
            "heat", "factor", 1.02, 1.0, 1.5,
            "time at the power limit after seconds, over that after 0.1 s", absent=1.0,
        ),
        Coefficient(
            "operand_bytes_per_s", "B/s", 1.8e13, 5e11, 4e14,
            "tiles' operands, L2 to shared memory", absent=NEVER,
        ),
        Coefficient(
            "cold_bytes_per_s", "B/s", 1e13, 5e11, 4e14, "weights' first touch, all SMs reading", absent=NEVER
        ),
        Coefficient(
            "expanded_per_s", "1/s", 1e13, 1e11, 1e16,
            "weights of a tile expanded to 16 bits, all SMs", absent=NEVER,
        ),
        Coefficient(
            "unaligned", "factor", 3.0, 1.0, 20.0, "rows that TMA cannot copy, over those it can", absent=1.0
        ),
        Coefficient("step_s", "s", 1e-7, 1e-10, 1e-5, "one step of a tile's pipeline", absent=0.0),
        Coefficient("stored_bytes_per_s", "B/s", 5e12, 3e11, 4e14, "tiles' results, stored", absent=NEVER),
        HBM,
        Coefficient("split_s", "s", 5e-6, 1e-8, 2e-5, "adding up the parts of split products", absent=0.0),
        Coefficient(
            "partial_bytes_per_s", "B/s", 5e12, 3e11, 4e13, "partial results, written and read", absent=NEVER
        ),
        Coefficient("tile_s", "s", 5e-7, 1e-8, 2e-5, "fill and drain of one wave of tiles", absent=0.0),
        OVERLAP,
    ),
    gemm_features,
    _gemm_price,
    power_limit=frozenset({"sustained_flops_per_s", "sustained_bytes_per_s", "heat"}),
)  # fmt: skip
