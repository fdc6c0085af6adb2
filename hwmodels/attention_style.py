"""Attention as engines before paged, fused, split-KV kernels run it, priced on top of what those cost.

A style says what an engine's code does differently. Each difference is bytes through HBM, launches, or a
context that one CTA reads alone, so that what is missing can be told from what the others have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..units import DTYPE_BYTES
from .attention_cost import MAX_KV_SPLITS, DecodeCost
from .layers import LayerOps
from .roofline import Roofline
from .step import DecodeGroup

# Kernels per layer: K and V are concatenated, and likewise repeated, one by one; scores, mask, softmax and
# the product with V are launches of their own (one of them attention's own, and the mask's is an addition).
# Source: Hugging Face transformers, modeling_llama.py (LlamaAttention.forward, repeat_kv).
COPY_KERNELS = 2
REPEAT_KERNELS = 2
UNFUSED_KERNELS = 3
# Passes through HBM of one score: written, and read by softmax; the probability written, and read.
# Source: standard attention, arXiv 2205.14135 Algorithm 0.
SCORE_PASSES = 4


@dataclass(frozen=True, slots=True)
class AttentionStyle:
    """How an engine runs attention of decodes; the defaults are those of a paged engine of today.

    is_fused: scores stay on chip, else they pass through HBM. splits_kv: a long context is cut into pieces
    for several CTAs, else one CTA reads a request's whole context per KV head. is_batched: one launch for
    all requests of a step, prompts included, else one for each. copies_cache: every step copies keys and
    values into a cache that is one token longer. repeats_heads: keys and values are repeated in HBM for each
    query head of a group. gathers_blocks: a load gathers tokens of many blocks, so that blocks of one token
    are read as fast as large ones (FlashInfer).
    Source: FlashInfer (arXiv 2501.01005) section 3.2.1, asynchronous copies of scattered rows.
    """

    is_fused: bool = True
    splits_kv: bool = True
    is_batched: bool = True
    copies_cache: bool = False
    repeats_heads: bool = False
    gathers_blocks: bool = False

    @property
    def reads_any_block_alike(self) -> bool:
        """Whether the cache's block size makes no difference: one tensor, or gathered rows."""
        return self.copies_cache or self.gathers_blocks

    @property
    def is_plain(self) -> bool:
        """Whether nothing differs but how blocks are read."""
        return self in (PAGED, GATHERED)

    def num_extra_kernels(self, *, is_grouped: bool) -> int:
        """Returns launches per layer beside those of fused attention over a cache in place.

        is_grouped: several query heads share keys and values.
        """
        return (
            COPY_KERNELS * self.copies_cache
            + REPEAT_KERNELS * (self.repeats_heads and is_grouped)
            + UNFUSED_KERNELS * (not self.is_fused)
        )


PAGED = AttentionStyle()
GATHERED = AttentionStyle(gathers_blocks=True)


class StyledDecode:
    """Decodes' attention in another style than that of `base`, which prices fused, split-KV, paged kernels.

    SIMPLIFIED: sliding windows shorten what is attended to, not what is copied or repeated; effect: none on
    models without windows, which is all that such engines were measured with.
    """

    def __init__(self, base: DecodeCost, style: AttentionStyle, layers: LayerOps, roofline: Roofline) -> None:
        shape, num_layers = layers.decode_shape(), layers.model.num_layers
        kv_bytes, per_layer_s = shape.kv_bytes_per_token, num_layers / roofline.hbm_bytes_per_s
        self._base = base
        self._is_batched = style.is_batched
        self._has_floor = not (style.splits_kv and style.is_batched)
        extra_bytes = 0.0
        if style.copies_cache:
            extra_bytes += 2 * kv_bytes
        if style.repeats_heads and shape.num_q_heads > shape.num_kv_heads:
            # Read once, written and read again for every query head, instead of read once.
            extra_bytes += 2 * kv_bytes * shape.num_q_heads / shape.num_kv_heads
        if not style.is_fused:
            extra_bytes += SCORE_PASSES * shape.num_q_heads * DTYPE_BYTES[shape.dtype]
        self._per_token_s = extra_bytes * per_layer_s
        sm_bytes_per_s = roofline.l2_bytes_per_s / roofline.device.num_sms
        num_splits = MAX_KV_SPLITS if style.splits_kv else 1
        self._alone_s = num_layers * kv_bytes / shape.num_kv_heads / num_splits / sm_bytes_per_s
        """Seconds per token of a context that has the device's SMs to itself."""

    def seconds(self, groups: Iterable[DecodeGroup]) -> tuple[float, str]:
        """Returns the time of all decodes of a step, and what binds it."""
        groups = tuple(groups)
        total_s, bound = self._base.seconds(groups)
        if self._has_floor and groups:
            alone = [self._alone(sum_context, longest) for _, _, sum_context, longest in groups]
            floor_s = self._alone_s * (max(alone) if self._is_batched else sum(alone))
            if floor_s > total_s:
                total_s, bound = floor_s, "l2"
        extra_s = self._per_token_s * sum(group.sum_context for group in groups)
        return total_s + extra_s, bound if extra_s <= total_s else "hbm"

    def line(
        self, count: int, sum_context: int, max_context: int, max_steps: int
    ) -> tuple[float, float, int, str]:
        """Returns the time of `count` one-token decodes over the coming steps, as far as it is a line."""
        base_s, slope_s, num_steps, bound = self._base.line(count, sum_context, max_context, max_steps)
        if self._has_floor:
            other_s = self._alone_s * self._alone(sum_context, max_context)
            other_slope_s = self._alone_s * (1 if self._is_batched else count)
            if other_s > base_s:
                base_s, slope_s, other_s, other_slope_s, bound = other_s, other_slope_s, base_s, slope_s, "l2"
            if other_slope_s > slope_s:
                num_steps = min(num_steps, int((base_s - other_s) / (other_slope_s - slope_s)) + 1)
        extra_s = self._per_token_s * sum_context
        if extra_s > base_s:
            bound = "hbm"
        return base_s + extra_s, slope_s + self._per_token_s * count, num_steps, bound

    def extrapolates(self, query_len: int, count: int, sum_context: int) -> bool:
        """Returns whether a measurement of other sizes is behind the time of such decodes."""
        return self._base.extrapolates(query_len, count, sum_context)

    def _alone(self, sum_context: int, longest: int) -> int:
        return longest if self._is_batched else sum_context
