"""A KV cache made smaller: what scales, dropped tokens and widening add to or take from a cached token."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimllmError

# A scale and a zero point, fp16 each, of a group of quantised keys or values.
# Source: KIVI (arXiv 2402.02750) section 3.2, asymmetric groups with fp16 scale and zero point.
GROUP_BYTES = 4.0

# A scale (fp16) and a zero point (int4) of a group of quantised weights.
# Source: AWQ (arXiv 2306.00978) and GPTQ (arXiv 2210.17323) checkpoints: `scales` fp16, `qzeros` packed int4.
WEIGHT_GROUP_BYTES = 2.5

# Vector work to widen one element and, with a scale of its own group, to multiply it: one instruction for two
# packed elements each time, of which a counted multiply-add is one for one.
# Source: estimated from Marlin (arXiv 2408.11743), section 3.4: lop3 and hfma2 on pairs of int4.
WIDEN_FLOPS, SCALE_FLOPS = 1.0, 1.0

# What H2O keeps beside a token and KV head: the attention that it has got so far, fp32, read and written.
# Source: H2O (arXiv 2306.14048) section 4, accumulated attention scores.
SCORE_BYTES = 8.0


@dataclass(frozen=True, slots=True)
class KvCompression:
    """What a cache does beyond its dtype.

    scale_bytes: of scales and zero points, per element [B]. scale_flops: vector work to apply them, per
    element that is loaded; 0 where they are folded into the query and the output. keep_share: tokens that
    stay, over all. keeps_scores: attention is summed up per token to choose them. window: tokens that a
    decode attends to at most, None for all.
    """

    scale_bytes: float = 0.0
    scale_flops: float = 0.0
    keep_share: float = 1.0
    keeps_scores: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.keep_share <= 1:
            raise SimllmError(f"keep_share must be in (0, 1], got {self.keep_share!r}")


NO_COMPRESSION = KvCompression()
