"""Seconds of attention over the KV cache, all layers, from a calibrated profile.

`attention_cost` does the same from datasheet rates; a step model takes one or the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil, inf

from .calibration import Calibration
from .kernel_times import KernelTimes
from .layers import LayerOps
from .op_point import OpPoint
from .op_prefill import PREFILL_CTAS_PER_SM, PREFILL_KEYS, PREFILL_ROWS
from .ops import Launches
from .step import Chunk, DecodeGroup

# Mean contexts [tokens] at which a set of decodes is priced; between two of them its time is a line.
# SIMPLIFIED: no sawtooth of blocks that fill one by one; effect: up to 20 % at single contexts of few
# requests, below 3 % over a range of them, below 0.5 % from 16 requests on.
KNOTS = (1, 32, *(round(64 * 2 ** (place / 2)) for place in range(32)))
_LAST = len(KNOTS) - 2
# Time per cached token of FlashAttention-3 over an fp8 cache, over that of the 16-bit one.
# Source: vLLM blog, "The State of FP8 KV-Cache and Attention Quantization in vLLM" (2026-04-22): the slope of
# the inter-token latency of Llama-3.1-8B over its context, on Hopper.
FP8_SHARE = 0.54
# Cached latents (MLA) that prefill chunks expand are priced per token, at the rate of so many.
# SIMPLIFIED: effect: too fast where a step expands a few hundred, by less than a launch per layer.
_EXPANDED_TOKENS = 8192


class CalibratedDecode:
    """Paged decode attention: per number of requests a curve over their mean context.

    Pure to its callers: what it remembers (a curve per number of requests) only saves work.
    SIMPLIFIED: all requests of a step have the mean context; effect: too fast where one request is many
    times longer than the rest and there are too few to fill the GPU.
    """

    def __init__(
        self, layers: LayerOps, calibration: Calibration, point: OpPoint, read_factor: float = 1.0
    ) -> None:
        """`point`: the heads and the kernel, without batch and contexts. read_factor: see `paged_read`."""
        self._point = point
        self._ops = calibration.ops
        self._ratio = layers.model.num_layers * calibration.kernels.ratio(point.op) * read_factor
        # A cache of fewer tokens or bytes is read like a context that is as much shorter.
        byte_share = FP8_SHARE if calibration.reads_half(layers) else 1.0
        self._share = byte_share * layers.precision.kv_compression.keep_share
        self._window = byte_share * (layers.decode_window or inf)
        self._measured = _measured(calibration, point, ("context_len", "query_len", "batch"))
        self._curves: dict[tuple[int, int], tuple[float, ...]] = {}

    def seconds(self, groups: Iterable[DecodeGroup]) -> tuple[float, str]:
        """Returns the time of all decodes of a step, and what binds it."""
        total_s = 0.0
        for query_len, count, sum_context, _ in groups:
            mean = min(self._share * sum_context / count, self._window)
            curve = self._curves.get((query_len, count)) or self._make_curve(query_len, count)
            place, slope_s = _segment(curve, mean)
            total_s += curve[place] + (mean - KNOTS[place]) * slope_s
        return total_s, "hbm"

    def line(
        self, count: int, sum_context: int, max_context: int, max_steps: int
    ) -> tuple[float, float, int, str]:
        """Returns the time of `count` one-token decodes over the coming steps, as far as it is a line.

        That is (seconds of the first step, seconds more per step, number of steps, what binds). In step i
        the mean context is i tokens longer, up to the sliding window.
        """
        mean = self._share * sum_context / count
        curve = self._curves.get((1, count)) or self._make_curve(1, count)
        if mean >= self._window:
            place, slope_s = _segment(curve, self._window)
            return curve[place] + (self._window - KNOTS[place]) * slope_s, 0.0, max_steps, "hbm"
        place, slope_s = _segment(curve, mean)
        until = min(KNOTS[place + 1] if place < _LAST else inf, self._window)
        num_steps = max_steps if until == inf else min(max_steps, int((until - mean) / self._share) + 1)
        return curve[place] + (mean - KNOTS[place]) * slope_s, self._share * slope_s, num_steps, "hbm"

    def extrapolates(self, query_len: int, count: int, sum_context: int) -> bool:
        """Returns whether such decodes are more, longer or of other heads than what was measured."""
        contexts, queries, batches = self._measured
        mean = min(self._share * sum_context / count, self._window)
        return (
            not contexts[0] <= mean <= contexts[1]
            or not queries[0] <= query_len <= queries[1]
            or not batches[0] <= count <= batches[1]
        )

    def _make_curve(self, query_len: int, count: int) -> tuple[float, ...]:
        points = [
            replace(self._point, batch=count, query_len=query_len, context_len=max(knot, query_len))
            for knot in KNOTS
        ]
        seconds = self._ops.seconds(points) * self._ratio
        curve = self._curves[query_len, count] = tuple(float(value) for value in seconds)
        return curve


def _measured(calibration: Calibration, point: OpPoint, names: Sequence[str]) -> list[tuple[float, float]]:
    """Returns the measured range of each of some sizes; empty ones if the point's other sizes were not."""
    valid = calibration.ops.entry(point).valid
    others = {name: ends for name, ends in valid.items() if name not in names}
    if any(not low <= getattr(point, name) <= high for name, (low, high) in others.items()):
        return [(inf, -inf) for _ in names]
    return [valid.get(name, (-inf, inf)) for name in names]


def _segment(curve: tuple[float, ...], mean: float) -> tuple[int, float]:
    """Returns the knot at or below a mean context, and the curve's rise per token from there."""
    place = min(max(bisect_right(KNOTS, mean) - 1, 0), _LAST)
    return place, (curve[place + 1] - curve[place]) / (KNOTS[place + 1] - KNOTS[place])


class CalibratedPrefill:
    """Attention of prefill chunks, all in one launch per layer: the CTAs of all chunks share the SMs.

    The formula is that of `op_prefill`, with the work of all chunks in place of one's. MLA also expands the
    cached latents that a chunk attends to, in every layer of every chunk.
    SIMPLIFIED: no keys that L2 loses and reads again; effect: up to some percent too fast where the contexts
    of a step hold more keys and values than L2.
    """

    def __init__(
        self, layers: LayerOps, calibration: Calibration, point: OpPoint, times: KernelTimes
    ) -> None:
        """`point`: the heads and the kernel, without the sizes of chunks. times: prices the expansion."""
        value, shape = calibration.ops.coefficients(point), layers.prefill_shape()
        self._measured = _measured(calibration, point, ("context_len", "query_len"))
        ratio = calibration.kernels.ratio(point.op) * calibration.full_clock_ratio
        self._repeats = layers.model.num_layers * ratio
        self._num_heads, self._num_sms = shape.num_q_heads, calibration.ops.device.num_sms
        self._window = layers.model.sliding_window or inf
        self._step = PREFILL_ROWS if point.implementation == "sdpa-cudnn" else PREFILL_KEYS
        pair_flops = shape.flops_per_pair / shape.num_q_heads
        self._pair_s = pair_flops / value["matrix_flops_per_s"] + 1 / value["exponentials_per_s"]
        self._cta_s, self._cta_share = value["cta_s"], value["cta_share"]
        self._tail, self._wave_tail = value["tail"], value["wave_tail"]
        self._launch_s = value["launch_s"]
        self._key_s = shape.kv_bytes_per_token / value["hbm_bytes_per_s"]
        self._query_s = shape.query_bytes_per_token / value["hbm_bytes_per_s"]
        self._cached_s = _expansion_s(layers, times)

    def extrapolates(self, chunks: Iterable[Chunk]) -> bool:
        """Returns whether a chunk's length or context, or the heads, were not measured."""
        contexts, queries = self._measured
        return any(
            not (queries[0] <= query_len <= queries[1] and contexts[0] <= context_len <= contexts[1])
            for query_len, context_len, _ in chunks
        )

    def seconds(self, chunks: Iterable[Chunk]) -> tuple[float, str]:
        """Returns the time of all chunks of a step at full clock, and what binds it."""
        num_tiles, pairs, longest, cached, traffic_s = 0, 0.0, 0.0, 0.0, 0.0
        for query_len, context_len, count in chunks:
            seen = min(context_len, self._window)
            tiles = ceil(query_len / PREFILL_ROWS)
            rows = tiles * PREFILL_ROWS
            beyond = max(0, rows - ceil(query_len / self._step) * self._step)
            num_tiles += count * tiles
            # With a sliding window a tile walks the window and its own rows at most.
            most = self._window + PREFILL_ROWS
            pairs += count * min(tiles * seen + rows * (tiles + 1) / 2 - beyond, tiles * most)
            longest = max(longest, min(seen + rows - beyond, most))
            cached += count * seen
            traffic_s += count * ((seen + query_len) * self._key_s + query_len * self._query_s)
        num_ctas = num_tiles * self._num_heads
        waves = num_ctas / (PREFILL_CTAS_PER_SM * self._num_sms)
        idle_share = min(ceil(waves) / waves, 2.0) - 1
        mean_s = (
            PREFILL_ROWS * self._num_heads * pairs * self._pair_s + num_ctas / self._num_sms * self._cta_s
        )
        mean_s *= 1 + self._wave_tail * idle_share
        longest_s = PREFILL_ROWS * longest * self._num_sms * self._pair_s + self._cta_s
        total_s = _smooth_max(mean_s + self._tail * longest_s, longest_s / self._cta_share)
        return self._repeats * (self._launch_s + total_s + traffic_s) + cached * self._cached_s, "matrix"


def _expansion_s(layers: LayerOps, times: KernelTimes) -> float:
    """Returns the time of expanding one cached latent in all layers [s], 0 without MLA."""
    expansion = layers.latent_expansion(_EXPANDED_TOKENS)
    if expansion is None:
        return 0.0
    return times.total([Launches(layers.model.num_layers, (expansion,))]).busy_s / _EXPANDED_TOKENS


def _smooth_max(first: float, second: float) -> float:
    """Returns what `op_form.smooth_max` gives for two terms with exponent 8."""
    large, small = (first, second) if first >= second else (second, first)
    return large * float((1 + (small / large) ** 8) ** 0.125)
