"""How long one operation takes on a calibrated GPU: physical formulas with few coefficients.

The same functions serve the fit (arrays of measured points) and the predictor (one row). A form names its
coefficients; their values come from a fitted file. No table of answers: every term is work over a rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .device import DeviceSpec
from .op_features import Features, decode_features, gemm_features, prefill_features, stream_features
from .op_point import OpPoint

Array = NDArray[np.float64]
Coefficients = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A rate, time or exponent of a form: unit, where a fit starts, and the bounds that physics sets."""

    name: str
    unit: str
    initial: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Form:
    """One formula: what it needs of a point, its coefficients, and the seconds that follow."""

    name: str
    coefficients: tuple[Coefficient, ...]
    features: Callable[[Sequence[OpPoint], DeviceSpec], Features]
    seconds: Callable[[Features, Coefficients], Array]


def smooth_max(exponent: float, *terms: Array) -> Array:
    """Returns (sum of terms^p)^(1/p): the largest where one dominates, more where several are equal.

    p = 1 is no overlap, p -> infinity perfect overlap. Monotone in every term and smooth everywhere.
    """
    largest = np.maximum.reduce(terms)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(scale * sum((term / scale) ** exponent for term in terms) ** (1 / exponent))


# How sharply the mean SM's work and the longest CTA's meet: 9 % more than either where they are equal.
_CORNER = 8.0

_LAUNCH = Coefficient(
    "launch_s", "s", 3e-6, 2e-7, 3e-5, "launch, first loads and last stores of one kernel inside a CUDA graph"
)
_OVERLAP = Coefficient(
    "overlap", "exponent", 4.0, 1.0, 40.0, "how well traffic hides behind arithmetic: 1 not at all"
)
_HBM = Coefficient("hbm_bytes_per_s", "B/s", 4e12, 2e11, 1e13, "streams from HBM")


def _gemm_seconds(features: Features, coefficients: Coefficients) -> Array:
    """Returns the fastest tile's time: whole waves and bytes from HBM overlap, under the power limit.

    One wave: a tile's FLOPs at one SM's share of the matrix rate, its operands at one SM's share of the
    operand rate, or the first touch of its weights, whichever is longest, and a time to fill and drain.
    Power: every FLOP and every byte costs energy, and the board may draw so much. At the limit the clock
    falls, so time is at least FLOPs / sustained rate + bytes / the rate at which traffic alone would meet it.
    """
    rate = coefficients.__getitem__
    tile_s = np.maximum.reduce(
        [
            features["tile_flops"] / rate("matrix_flops_per_s"),
            features["tile_bytes"] / rate("operand_bytes_per_s"),
            np.broadcast_to(features["cold_bytes"] / rate("cold_bytes_per_s"), features["tile_flops"].shape),
        ]
    )
    split_s = features["is_split"] * rate("split_s") + features["split_bytes"] / rate("l2_bytes_per_s")
    waves_s = np.ceil(features["waves"]) * (tile_s + rate("tile_s")) + split_s
    hbm_s = np.broadcast_to(features["hbm_bytes"] / rate("hbm_bytes_per_s"), waves_s.shape)
    flops = features["waves"] * features["tile_flops"]
    power_s = flops / rate("sustained_flops_per_s") + features["hbm_bytes"] / rate("sustained_bytes_per_s")
    total_s = np.maximum(smooth_max(rate("overlap"), waves_s, hbm_s), power_s)
    return np.asarray(rate("launch_s") + total_s.min(axis=1))


def _prefill_seconds(features: Features, coefficients: Coefficients) -> Array:
    """Returns launches, the work of a mean SM or the longest CTA alone, and traffic that does not hide.

    A CTA's work is matrix FLOPs and exponentials, one after the other, and a fixed time. Alone on an SM it
    reaches `cta_share` of the SM's rates under full load. Beside the mean, `tail` of the longest CTA and
    `wave_tail` of a partly filled last wave count: what list scheduling leaves idle at the end.
    Source: Graham 1969, doi 10.1137/0117039 (total / machines + the longest job bounds any list schedule).
    """
    rate = coefficients.__getitem__

    def busy_s(of: str) -> Array:
        return (
            features[f"{of}_flops"] / rate("matrix_flops_per_s")
            + features[f"{of}_exponentials"] / rate("exponentials_per_s")
            + features[f"{of}_ctas"] * rate("cta_s")
        )

    mean_s = busy_s("mean") * (1 + rate("wave_tail") * features["idle_share"])
    longest_s = busy_s("longest")
    total_s = smooth_max(_CORNER, mean_s + rate("tail") * longest_s, longest_s / rate("cta_share"))
    launch_s = features["num_launches"] * rate("launch_s")
    return launch_s + total_s + features["hbm_bytes"] / rate("hbm_bytes_per_s")


def _decode_seconds(features: Features, coefficients: Coefficients) -> Array:
    """Returns both launches, the longest of traffic, softmax and the longest CTA alone, and the reduction.

    A CTA walks its keys one block after the other: a time per key, its bytes, and its pairs of row and key.
    The reduction adds up the parts that contexts were split into; without splits it is not launched.
    """
    rate = coefficients.__getitem__
    longest_s = (
        features["longest_keys"] * rate("key_s")
        + features["longest_bytes"] / rate("cta_bytes_per_s")
        + features["longest_pairs"] / rate("cta_pairs_per_s")
    )
    hbm_s = features["hbm_bytes"] / rate("hbm_bytes_per_s")
    pairs_s = features["pairs"] / rate("pairs_per_s")
    busy_s = smooth_max(rate("overlap"), hbm_s, pairs_s, longest_s)
    start_s = features["mean_ctas"] * rate("cta_s")
    partial_s = features["partial_bytes"] / rate("partial_bytes_per_s")
    return rate("launch_s") + features["is_split"] * rate("reduce_s") + busy_s + start_s + partial_s


def _stream_seconds(features: Features, coefficients: Coefficients) -> Array:
    """Returns launch plus bytes at the L2's rate, and those that L2 cannot keep at HBM's rate as well.

    What misses grows smoothly around the L2's size: 1 / (1 + (capacity / bytes)^sharpness).
    """
    num_bytes = features["hbm_bytes"]
    missing = 1 / (1 + (coefficients["l2_capacity_bytes"] / num_bytes) ** coefficients["sharpness"])
    l2_s = num_bytes / coefficients["l2_bytes_per_s"]
    hbm_s = missing * num_bytes / coefficients["hbm_bytes_per_s"]
    row_s = features["row"] * coefficients["row_s"]
    return coefficients["launch_s"] + row_s + smooth_max(2.0, l2_s, hbm_s)


_MATRIX = Coefficient("matrix_flops_per_s", "FLOP/s", 9e14, 1e13, 3e15, "matrix units on full tiles")
_GEMM = Form(
    "gemm",
    (
        _LAUNCH,
        _MATRIX,
        Coefficient(
            "sustained_flops_per_s", "FLOP/s", 7e14, 1e13, 3e15, "matrix units where power sets the clock"
        ),
        Coefficient(
            "sustained_bytes_per_s", "B/s", 2e13, 1e12, 1e15, "HBM traffic that would take all the power"
        ),
        Coefficient("operand_bytes_per_s", "B/s", 1.8e13, 5e11, 4e14, "tiles' operands, L2 to shared memory"),
        Coefficient("cold_bytes_per_s", "B/s", 1e13, 5e11, 4e14, "weights' first touch, all SMs reading"),
        _HBM,
        Coefficient("split_s", "s", 5e-6, 1e-8, 2e-5, "adding up the parts of split products"),
        Coefficient("l2_bytes_per_s", "B/s", 5e12, 3e11, 4e13, "partial results, written and read"),
        Coefficient("tile_s", "s", 5e-7, 1e-8, 2e-5, "fill and drain of one wave of tiles"),
        _OVERLAP,
    ),
    gemm_features,
    _gemm_seconds,
)
_CTA = Coefficient("cta_s", "s", 3e-7, 1e-9, 3e-5, "start and end of one CTA")
_PREFILL = Form(
    "prefill",
    (
        _LAUNCH,
        _MATRIX,
        Coefficient("exponentials_per_s", "1/s", 4e12, 3e11, 1e15, "softmax, as exponentials"),
        _CTA,
        Coefficient("cta_share", "share", 0.7, 0.1, 1.5, "share of an SM's rates that one CTA alone reaches"),
        Coefficient("tail", "share", 0.2, 0.01, 1.0, "how much of the longest CTA comes after the rest"),
        Coefficient("wave_tail", "share", 0.2, 0.01, 1.0, "how much of the idle part of a last wave counts"),
        _HBM,
    ),
    prefill_features,
    _prefill_seconds,
)
_DECODE = Form(
    "decode",
    (
        _LAUNCH,
        _HBM,
        Coefficient("pairs_per_s", "1/s", 4e12, 1e11, 1e15, "pairs of query row and key, all SMs"),
        Coefficient("key_s", "s", 1e-8, 1e-11, 1e-6, "one key in the longest CTA"),
        Coefficient("cta_pairs_per_s", "1/s", 2e10, 1e8, 1e13, "pairs that one CTA works off"),
        Coefficient("cta_bytes_per_s", "B/s", 1.5e10, 1e9, 1e12, "what one CTA alone reads"),
        _CTA,
        Coefficient("reduce_s", "s", 2e-6, 1e-8, 2e-5, "launch of the reduction over splits"),
        Coefficient("partial_bytes_per_s", "B/s", 2e12, 1e11, 1e14, "partial results, written and read"),
        _OVERLAP,
    ),
    decode_features,
    _decode_seconds,
)
_STREAM = Form(
    "stream",
    (
        _LAUNCH,
        Coefficient("l2_bytes_per_s", "B/s", 6e12, 3e11, 4e13, "bytes that are still in L2"),
        _HBM,
        Coefficient("l2_capacity_bytes", "B", 4e7, 4e6, 2e8, "traffic at which half of it misses L2"),
        Coefficient("sharpness", "exponent", 3.0, 1.0, 12.0, "how sudden L2 overflows"),
        Coefficient("row_s", "s", 5e-7, 1e-8, 1e-5, "4,096 elements of one row, read and reduced by one CTA"),
    ),
    stream_features,
    _stream_seconds,
)

FORMS: Mapping[str, Form] = {form.name: form for form in (_GEMM, _PREFILL, _DECODE, _STREAM)}
FORM_OF_OP: Mapping[str, str] = {
    "gemm": "gemm",
    "grouped_gemm": "gemm",
    "attention_prefill": "prefill",
    "attention_decode": "decode",
    "mla_decode": "decode",
    "rms_norm": "stream",
    "layer_norm": "stream",
    "silu_mul": "stream",
    "softmax": "stream",
}


def form_of(op: str) -> Form:
    """Returns the formula that prices an op."""
    return FORMS[FORM_OF_OP[op]]
