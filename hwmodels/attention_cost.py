"""Seconds of attention over the KV cache, all layers, prepared so that a step costs a few products.

The formulas are those of `ops`; here they are divided by the device's rates once, at construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from .layers import LayerOps
from .ops import issued_pairs
from .roofline import Roofline
from .step import Chunk, DecodeGroup

# Pieces that split-KV decoding cuts one request's context into, at most.
# Source: vLLM, AttentionConfig.flash_attn_max_num_splits_for_cuda_graph
MAX_KV_SPLITS = 32

_FOREVER = 1 << 62  # steps; a bound that never binds


class PrefillCost(Protocol):
    """Prices the attention of prefill chunks."""

    def seconds(self, chunks: Iterable[Chunk]) -> tuple[float, str]:
        """Returns the time of all chunks of a step, in one varlen launch per layer, and what binds it."""
        ...

    def extrapolates(self, chunks: Iterable[Chunk]) -> bool:
        """Returns whether a measurement of other sizes is behind that time."""
        ...


class DecodeCost(Protocol):
    """Prices the attention of decodes."""

    def seconds(self, groups: Iterable[DecodeGroup]) -> tuple[float, str]:
        """Returns the time of all decodes of a step, and what binds it."""
        ...

    def line(
        self, count: int, sum_context: int, max_context: int, max_steps: int
    ) -> tuple[float, float, int, str]:
        """Returns the time of `count` one-token decodes over the coming steps, as far as it is a line.

        That is (seconds of the first step, seconds more per step, number of steps, what binds).
        """
        ...

    def extrapolates(self, query_len: int, count: int, sum_context: int) -> bool:
        """Returns whether a measurement of other sizes is behind the time of such decodes."""
        ...


class DecodeRates(NamedTuple):
    """Seconds of decode attention per cached token and per request, for one query length."""

    per_token_s: float
    per_request_s: float
    bound: str


class PrefillAttention:
    """Attention of prefill chunks: the busiest of matrix units, L2, SRAM, vector units and HBM.

    MLA also expands the cached latents that a chunk attends to, in every layer of every chunk.
    """

    def __init__(self, layers: LayerOps, roofline: Roofline) -> None:
        shape, num_layers = layers.prefill_shape(), layers.model.num_layers
        matrix = roofline.matrix_flops_per_s(shape.dtype) * roofline.efficiency.attention_matrix
        self._window = layers.model.sliding_window
        self._tile_tokens = shape.tile_tokens
        per_pair, self._bound = max(
            (shape.flops_per_pair / matrix, "matrix"),
            (shape.vector_flops_per_pair / roofline.vector_flops_per_s, "vector"),
            (shape.l2_bytes_per_pair / roofline.l2_bytes_per_s, "l2"),
            (shape.sram_bytes_per_pair / roofline.sram_bytes_per_s, "sram"),
        )
        self._per_pair_s = num_layers * per_pair
        self._per_key_s = num_layers * shape.kv_bytes_per_token / roofline.hbm_bytes_per_s
        self._per_query_s = num_layers * shape.query_bytes_per_token / roofline.hbm_bytes_per_s
        expansion = layers.latent_expansion(1)
        self._per_cached_s = 0.0
        if expansion is not None:
            gemm = expansion.flops / (
                roofline.matrix_flops_per_s(expansion.dtype) * roofline.efficiency.matrix
            )
            self._per_cached_s = num_layers * max(gemm, shape.kv_bytes_per_token / roofline.hbm_bytes_per_s)

    def seconds(self, chunks: Iterable[Chunk]) -> tuple[float, str]:
        """Returns the time of all chunks of a step, in one varlen launch per layer, and what binds it."""
        pairs = keys = queries = cached = 0
        window, tile_tokens = self._window, self._tile_tokens
        for query_len, context_len, count in chunks:
            seen = context_len if window is None or context_len < window else window
            pairs += count * issued_pairs(query_len, context_len, tile_tokens, window)
            keys += count * (query_len + seen)
            queries += count * query_len
            cached += count * seen
        compute_s = pairs * self._per_pair_s
        memory_s = keys * self._per_key_s + queries * self._per_query_s
        expand_s = cached * self._per_cached_s
        if compute_s >= memory_s:
            return compute_s + expand_s, self._bound
        return memory_s + expand_s, "hbm"

    def extrapolates(self, chunks: Iterable[Chunk]) -> bool:
        """Returns False: rates of a datasheet hold for all sizes."""
        return False


class DecodeAttention:
    """Paged decode attention: a straight line in the sum of contexts, floored by the longest one.

    SIMPLIFIED: reading Q and writing O adds to the time instead of hiding behind compute; effect: below
    1 % beyond 100 tokens of context. SIMPLIFIED: with a sliding window the sum of contexts is capped at
    `count` windows, not each context by itself; effect: too slow while some contexts are shorter.
    """

    def __init__(self, layers: LayerOps, roofline: Roofline, read_factor: float = 1.0) -> None:
        """read_factor: time of reading the cache over that with large blocks (see `paged_read`)."""
        self.shape = layers.decode_shape()
        self._read_factor = read_factor
        self.window = layers.decode_window
        self._share = layers.precision.kv_compression.keep_share
        self._num_layers = layers.model.num_layers
        self._roofline = roofline
        self._rates: dict[int, DecodeRates] = {}
        sm_bytes_per_s = roofline.l2_bytes_per_s / roofline.device.num_sms
        head_bytes = self.shape.kv_bytes_per_token / self.shape.num_kv_heads
        self.per_longest_token_s = (
            self._share * self._num_layers * head_bytes / MAX_KV_SPLITS / sm_bytes_per_s
        )
        """Seconds per token of the longest context: one CTA streams one split of one KV head."""

    def rates(self, query_len: int) -> DecodeRates:
        """Returns the rates of decodes with `query_len` new tokens each, remembered from call to call."""
        rates = self._rates.get(query_len)
        if rates is None:
            rates = self._rates[query_len] = self._make_rates(query_len)
        return rates

    def seconds(self, groups: Iterable[DecodeGroup]) -> tuple[float, str]:
        """Returns the time of all decodes of a step, and what binds it."""
        total_s = 0.0
        longest, bound, window = 0, "hbm", self.window
        for query_len, count, sum_context, max_context in groups:
            if window is not None:
                sum_context = min(sum_context, count * window)
                max_context = min(max_context, window)
            per_token_s, per_request_s, bound = self.rates(query_len)
            total_s += sum_context * per_token_s + count * per_request_s
            longest = max(longest, max_context)
        longest_s = longest * self.per_longest_token_s
        return (longest_s, "l2") if longest_s > total_s else (total_s, bound)

    def line(
        self, count: int, sum_context: int, max_context: int, max_steps: int
    ) -> tuple[float, float, int, str]:
        """Returns the time of `count` one-token decodes over the coming steps, as far as it is a line.

        That is (seconds of the first step, seconds more per step, number of steps, what binds). In step i
        the sum is ``sum_context + i * count`` and the longest ``max_context + i``. The line ends where a
        sliding window fills up, or where the longest context stops or starts to bind.
        """
        per_token_s, per_request_s, bound = self.rates(1)
        num_steps, new_tokens, new_longest = max_steps, count, 1
        window = self.window
        if window is not None:
            sum_context, new_tokens, filled_at = _fill(count * window, sum_context, count)
            max_context, new_longest, longest_filled_at = _fill(window, max_context, 1)
            num_steps = min(num_steps, filled_at, longest_filled_at)
        base_s = sum_context * per_token_s + count * per_request_s
        slope_s = new_tokens * per_token_s
        other_s = max_context * self.per_longest_token_s
        other_slope_s = new_longest * self.per_longest_token_s
        if other_s > base_s:
            base_s, slope_s, other_s, other_slope_s, bound = other_s, other_slope_s, base_s, slope_s, "l2"
        if other_slope_s > slope_s:
            num_steps = min(num_steps, int((base_s - other_s) / (other_slope_s - slope_s)) + 1)
        return base_s, slope_s, num_steps, bound

    def extrapolates(self, query_len: int, count: int, sum_context: int) -> bool:
        """Returns False: rates of a datasheet hold for all sizes."""
        return False

    def _make_rates(self, query_len: int) -> DecodeRates:
        shape, roofline = self.shape, self._roofline
        matrix = roofline.matrix_flops_per_s(shape.dtype) * roofline.efficiency.attention_matrix
        per_token, bound = max(
            (self._read_factor * shape.kv_bytes_per_token / roofline.kv_bytes_per_s, "hbm"),
            (shape.decode_issued_flops_per_token(query_len) / matrix, "matrix"),
            (shape.decode_vector_flops_per_token(query_len) / roofline.vector_flops_per_s, "vector"),
        )
        per_request = query_len * shape.query_bytes_per_token / roofline.kv_bytes_per_s
        return DecodeRates(self._share * self._num_layers * per_token, self._num_layers * per_request, bound)


def _fill(capacity: int, filled: int, growth: int) -> tuple[int, int, int]:
    """Returns what is held of `filled`, its growth per step, and the steps for which that is true."""
    if filled >= capacity:
        return capacity, 0, _FOREVER
    return filled, growth, (capacity - filled) // growth + 1
