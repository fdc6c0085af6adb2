"""Attention of prompts by the algorithms before FlashAttention-2, to see what the newer ones bring.

`naive` writes scores and probabilities to HBM, `fa1` (FlashAttention-1) passes queries and outputs through it
once per block of keys. Both are priced by the roofline of `ops`' formulas, on a calibrated device, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from . import ops
from .layers import LayerOps
from .ops import Op
from .roofline import Roofline
from .step import Chunk

AttentionImpl = Literal["naive", "fa1", "fa2", "fa3"]
OLDER: tuple[AttentionImpl, ...] = ("naive", "fa1")


class OlderPrefill:
    """Attention of prefill chunks by an older algorithm, one launch per chunk and layer.

    SIMPLIFIED: a chunk after context takes what the whole sequence takes beyond the context; sliding windows
    save no work, and the scores' memory is not taken from the KV cache. Effect: up to some 10 % in short
    chunks; more KV blocks than a naive engine would have.
    """

    def __init__(self, layers: LayerOps, roofline: Roofline, algorithm: AttentionImpl) -> None:
        self._shape = layers.prefill_shape()
        self._num_layers = layers.model.num_layers
        self._roofline = roofline
        self._algorithm = algorithm

    def seconds(self, chunks: Iterable[Chunk]) -> tuple[float, str]:
        """Returns the time of all chunks of a step, and what binds the last."""
        total_s, bound = 0.0, "none"
        for query_len, context_len, count in chunks:
            whole_s, bound = self._sequence(context_len + query_len)
            total_s += count * (whole_s - (self._sequence(context_len)[0] if context_len else 0.0))
        return self._num_layers * total_s, bound

    def extrapolates(self, chunks: Iterable[Chunk]) -> bool:
        """Returns False: rates of a datasheet hold for all sizes."""
        return False

    def _sequence(self, seq_len: int) -> tuple[float, str]:
        timing = self._roofline.time(self._op(seq_len))
        return timing.busy_s + timing.gap_s, timing.bound

    def _op(self, seq_len: int) -> Op:
        if self._algorithm == "naive":
            return ops.naive_attention(self._shape, seq_len=seq_len)
        sram_bytes = self._roofline.device.sram_bytes_per_sm
        return ops.flash1_attention(self._shape, seq_len=seq_len, sram_bytes_per_sm=sram_bytes)
