"""Grids of attention: prefill chunks after contexts, decode batches even and ragged, images and windows."""

from __future__ import annotations

from collections.abc import Sequence

from ..hwmodels.op_point import OpPoint
from .plan_shapes import attention_heads, vision_heads
from .stream import Stream

QUERY_LENS = (
    16, 64, 100, 128, 200, 256, 384, 512, 768, 1000, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384,
)  # fmt: skip
CONTEXT_LENS = (0, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
CHUNKS_PER_BATCH = (1, 1, 1, 2, 4, 8)
DECODE_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
DECODE_CONTEXTS = (64, 128, 200, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384, 32768, 65536)
# How much longer the longest request of a batch is than the mean; 1 where all are equal.
RAGGEDNESS = (1, 1, 2, 4)
VERY_RAGGED = (2, 4, 8, 16)
VERIFIED_LENS = (1, 1, 1, 2, 4, 8)  # query tokens of a decode; more than 1 verifies drafts
MAX_QUERY_ROWS = 128  # query tokens times query heads of one KV head that the decode kernel holds
BLOCK_SIZE = 64
SMALL_BLOCK_SIZE = 16  # vLLM's default, where a tile of keys lies in several blocks
MLA_HEADS = (16, 32, 64, 128)
# DeepSeek-V3's latent. Source: arXiv 2412.19437 section 4.2 (512 compressed and 64 rotary dimensions).
MLA_LATENT, MLA_ROPE = 512, 64
# Patches that see each other: a window of 8 x 8 (Qwen2.5-VL, arXiv 2502.13923), then images of 224 to 1,792
# pixels a side in patches of 14.
VISION_PATCHES = (64, 256, 576, 1024, 1025, 2304, 4096, 9216, 16384)
VISION_BATCHES = (1, 2, 4, 8, 16, 64, 256)


def _prefill(implementation: str, weight: float, count: int) -> Stream:
    def make(heads: tuple[int, int, int], query_len: int, context_len: int, batch: int) -> OpPoint | None:
        if implementation == "sdpa-cudnn" and context_len:
            return None  # torch aligns cuDNN's causal mask to the first key, which is wrong after a context
        return OpPoint(
            "attention_prefill", implementation, "bf16",
            batch=batch, query_len=query_len, context_len=context_len,
            num_q_heads=heads[0], num_kv_heads=heads[1], head_dim=heads[2],
            block_size=BLOCK_SIZE if implementation == "triton" else 0,
        )  # fmt: skip

    axes = (attention_heads(), QUERY_LENS, CONTEXT_LENS, CHUNKS_PER_BATCH)
    return Stream("attention_prefill", implementation, "bf16", axes, make, weight, count)


def _decode(
    implementation: str, dtype: str, weight: float, count: int,
    raggedness: Sequence[int] = RAGGEDNESS, query_lens: Sequence[int] = VERIFIED_LENS,
    block_size: int = BLOCK_SIZE,
) -> Stream:  # fmt: skip
    def make(
        heads: tuple[int, int, int], batch: int, context_len: int, ragged: int, query_len: int
    ) -> OpPoint | None:
        if implementation != "triton" and (ragged > 1 or query_len > 1):
            return None
        # The longest request alone has as many tokens as `ragged` mean ones.
        if query_len * heads[0] // heads[1] > MAX_QUERY_ROWS or (ragged > 1 and batch < ragged):
            return None
        return OpPoint(
            "attention_decode", implementation, dtype,
            batch=batch, query_len=query_len, context_len=context_len,
            max_context_len=ragged * context_len if ragged > 1 else 0,
            num_q_heads=heads[0], num_kv_heads=heads[1], head_dim=heads[2],
            block_size=block_size if implementation == "triton" else 0,
        )  # fmt: skip

    axes = (attention_heads(), DECODE_BATCHES, DECODE_CONTEXTS, raggedness, query_lens)
    return Stream("attention_decode", implementation, dtype, axes, make, weight, count)


def _mla(weight: float, count: int) -> Stream:
    def make(num_heads: int, batch: int, context_len: int) -> OpPoint:
        return OpPoint(
            "mla_decode", "triton", "bf16", batch=batch, query_len=1, context_len=context_len,
            num_q_heads=num_heads, num_kv_heads=1, head_dim=MLA_LATENT, k=MLA_ROPE, block_size=BLOCK_SIZE,
        )  # fmt: skip

    axes = (MLA_HEADS, DECODE_BATCHES, DECODE_CONTEXTS)
    return Stream("mla_decode", "triton", "bf16", axes, make, weight, count)


def _vision(implementation: str, weight: float, count: int) -> Stream:
    def make(heads: tuple[int, int], num_patches: int, batch: int) -> OpPoint | None:
        num_heads, head_dim = heads
        # Ours holds heads of a power of two. Source: kernels/attention_prefill.
        if implementation == "triton" and head_dim & (head_dim - 1):
            return None
        return OpPoint(
            "attention_vision", implementation, "bf16", batch=batch, query_len=num_patches,
            num_q_heads=num_heads, num_kv_heads=num_heads, head_dim=head_dim,
        )  # fmt: skip

    axes = (vision_heads(), VISION_PATCHES, VISION_BATCHES)
    return Stream("attention_vision", implementation, "bf16", axes, make, weight, count)


def attention_streams() -> tuple[Stream, ...]:
    """Returns the grids, as `product_streams` does."""
    return (
        _prefill("sdpa-cudnn", 0.8, 130),
        _prefill("sdpa-flash", 1.0, 160),
        _prefill("triton", 1.3, 200),
        _decode("triton", "bf16", 1.6, 260),
        _decode("triton", "fp8", 0.7, 120),
        _decode("triton", "bf16", 0.3, 50, VERY_RAGGED, (1,)),
        _decode("triton", "bf16", 0.4, 60, block_size=SMALL_BLOCK_SIZE),
        _decode("sdpa-flash", "bf16", 0.6, 100),
        _mla(0.6, 90),
        _vision("sdpa-cudnn", 0.4, 70),
        _vision("sdpa-flash", 0.4, 70),
        _vision("triton", 0.25, 40),
    )
