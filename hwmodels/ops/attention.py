"""Attention: pairs of a query and a key, FLOPs per pair, and the bytes that each algorithm moves.

FlashAttention-2/3 (prefill chunks), split-KV paged decoding, and for comparison the naive algorithm and
FlashAttention-1's loop order. Multi-head latent attention is the same with other head shapes (see `mla`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ...units import DTYPE_BYTES
from .gemm import WARPGROUP_ROWS
from .op import Op

# Rows of Q (tokens x query heads of one group) that one CTA keeps in SRAM.
# Source: FlashAttention-3 (arXiv 2407.08608), forward tiles of 128 rows at head dimension 128.
QUERY_TILE_ROWS = 128

# Query rows that a decode kernel multiplies at least, be there one head in the group or 16.
# Source: PTX ISA, mma.sync has m16 shapes; decode kernels use it where wgmma's 64 rows would be waste.
DECODE_FRAGMENT_ROWS = 16

# FP32-FLOP equivalents of softmax per pair and query head: one exponential at 16 per SM and clock against
# 256 FLOPs per SM and clock (16), and subtract, max, scale, sum (4).
# Source: FlashAttention-3 section 3.2: H100 has 989 TFLOP/s of matmul and 3.9 T exponentials/s.
SOFTMAX_FLOPS = 20


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The heads of one attention layer on one rank.

    kv_bytes_per_token: cached bytes of one token in this layer, read once for all the query heads that
    share them. widen_flops_per_token: vector work each time a CTA loads a cached token that it cannot
    multiply as it is stored.
    """

    num_q_heads: int
    num_kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    dtype: str
    kv_bytes_per_token: float
    widen_flops_per_token: float = 0.0

    @classmethod
    def grouped_query(
        cls, num_q_heads: int, num_kv_heads: int, head_dim: int, *, dtype: str, kv_dtype: str | None = None
    ) -> AttentionShape:
        """Returns multi-head, grouped-query or multi-query attention (`num_kv_heads` tells which)."""
        kv_bytes = 2 * num_kv_heads * head_dim * DTYPE_BYTES[kv_dtype or dtype]
        return cls(num_q_heads, num_kv_heads, head_dim, head_dim, dtype, kv_bytes)

    @property
    def flops_per_pair(self) -> int:
        """FLOPs of one query token with one key token: QK^T and PV over all query heads."""
        return 2 * self.num_q_heads * (self.qk_head_dim + self.v_head_dim)

    @property
    def vector_flops_per_pair(self) -> float:
        """Softmax work of one pair, in FP32-FLOP equivalents; keys are widened once per tile of queries."""
        return SOFTMAX_FLOPS * self.num_q_heads + self.widen_flops_per_token / self.tile_tokens

    def decode_vector_flops_per_token(self, query_len: int) -> float:
        """Softmax and widening of one cached token that `query_len` new tokens attend to."""
        return SOFTMAX_FLOPS * self.num_q_heads * query_len + self.widen_flops_per_token

    @property
    def query_bytes_per_token(self) -> float:
        """Bytes of one query token: Q read, O written."""
        return self.num_q_heads * (self.qk_head_dim + self.v_head_dim) * DTYPE_BYTES[self.dtype]

    @property
    def tile_tokens(self) -> int:
        """Query tokens in one tile: the query heads of a group are packed into its rows."""
        return max(1, QUERY_TILE_ROWS * self.num_kv_heads // self.num_q_heads)

    @property
    def l2_bytes_per_pair(self) -> float:
        """K and V are read again for every tile of query rows; the re-reads hit L2."""
        return self.kv_bytes_per_token / self.tile_tokens

    @property
    def sram_bytes_per_pair(self) -> float:
        """Every warpgroup of 64 rows reads K and V from SRAM; Q stays in registers."""
        head_bytes = (self.qk_head_dim + self.v_head_dim) * DTYPE_BYTES[self.dtype]
        return self.num_q_heads * head_bytes / WARPGROUP_ROWS

    def decode_issued_flops_per_token(self, query_len: int) -> float:
        """FLOPs that one cached token costs when the query rows of a KV head fill whole matrix fragments."""
        rows = query_len * self.num_q_heads // self.num_kv_heads
        padded_rows = ceil(rows / DECODE_FRAGMENT_ROWS) * DECODE_FRAGMENT_ROWS
        return 2.0 * padded_rows * self.num_kv_heads * (self.qk_head_dim + self.v_head_dim)


def attention_pairs(query_len: int, context_len: int, window: int | None = None) -> int:
    """Returns the (query, key) pairs of a causal chunk: token i sees the context and i+1 of the chunk.

    512 tokens after 1,024: 512 * 1024 + 512 * 513 / 2 = 655,616.
    window: tokens that a query sees at most, itself included (sliding-window attention).
    """
    if window is None or context_len + query_len <= window:
        return query_len * context_len + query_len * (query_len + 1) // 2
    growing = max(0, window - context_len)
    return attention_pairs(growing, context_len) + (query_len - growing) * window


def issued_pairs(query_len: int, context_len: int, tile_tokens: int, window: int | None = None) -> int:
    """Returns the pairs that whole tiles of query tokens compute, masked ones on the diagonal included."""
    tiles = -(-query_len // tile_tokens)
    queries = tiles * tile_tokens
    if window is None:
        return queries * context_len + tile_tokens * tile_tokens * tiles * (tiles + 1) // 2
    unbounded = queries * min(context_len, window) + tile_tokens * tile_tokens * tiles * (tiles + 1) // 2
    return min(unbounded, queries * (window + tile_tokens))


def prefill_attention(
    shape: AttentionShape, *, query_len: int, context_len: int, count: int = 1, window: int | None = None
) -> Op:
    """Returns FlashAttention-2/3 over `count` equal chunks of `query_len` tokens after `context_len`.

    HBM once per request and KV head (K, V, Q, O); K and V again per query tile from L2. Work is spread
    evenly: the varlen kernels schedule tiles of all requests and heads longest first.
    Source: arXiv 2307.08691 (loop order), arXiv 2407.08608 (tile sizes, persistent scheduling).
    """
    pairs = count * attention_pairs(query_len, context_len, window)
    issued = count * issued_pairs(query_len, context_len, shape.tile_tokens, window)
    keys = query_len + (context_len if window is None else min(context_len, window))
    return Op(
        kind="prefill_attention",
        flops=float(pairs * shape.flops_per_pair),
        issued_flops=float(issued * shape.flops_per_pair),
        vector_flops=float(issued * shape.vector_flops_per_pair),
        hbm_bytes=count * (keys * shape.kv_bytes_per_token + query_len * shape.query_bytes_per_token),
        l2_bytes=issued * shape.l2_bytes_per_pair,
        sram_bytes=issued * shape.sram_bytes_per_pair,
        dtype=shape.dtype,
    )


def decode_attention(shape: AttentionShape, *, sum_context: int, count: int, query_len: int = 1) -> Op:
    """Returns paged decoding of `count` requests whose contexts sum to `sum_context` tokens.

    Each cached token is read once per KV head for all the heads and query tokens that share it.
    SIMPLIFIED: no partial results of split KV; effect: under 1 % of the bytes beyond 500 tokens of context.
    Source: PagedAttention (arXiv 2309.06180); crfm.stanford.edu/2023/10/12/flashdecoding.html
    """
    pairs = query_len * sum_context - count * query_len * (query_len - 1) // 2
    return Op(
        kind="decode_attention",
        flops=float(pairs * shape.flops_per_pair),
        issued_flops=sum_context * shape.decode_issued_flops_per_token(query_len),
        vector_flops=sum_context * shape.decode_vector_flops_per_token(query_len),
        hbm_bytes=sum_context * shape.kv_bytes_per_token + count * query_len * shape.query_bytes_per_token,
        dtype=shape.dtype,
    )


def naive_attention(shape: AttentionShape, *, seq_len: int, count: int = 1, is_causal: bool = True) -> Op:
    """Returns attention that writes the scores and the probabilities to HBM, as plain matrix products do.

    The mask does not save work: all seq_len^2 pairs are computed; S and P are each written and read once.
    Source: standard attention, arXiv 2205.14135 Algorithm 0 (Theta(N d + N^2) accesses).
    """
    pairs = attention_pairs(seq_len, 0) if is_causal else seq_len * seq_len
    matrix_bytes = 4 * seq_len * seq_len * shape.num_q_heads * DTYPE_BYTES[shape.dtype]
    row_bytes = seq_len * (shape.kv_bytes_per_token + shape.query_bytes_per_token)
    return Op(
        kind="naive_attention",
        flops=float(count * pairs * shape.flops_per_pair),
        issued_flops=float(count * seq_len * seq_len * shape.flops_per_pair),
        vector_flops=float(count * seq_len * seq_len * shape.vector_flops_per_pair),
        hbm_bytes=count * (matrix_bytes + row_bytes),
        dtype=shape.dtype,
        num_kernels=3,
    )


def flash1_attention(
    shape: AttentionShape, *, seq_len: int, sram_bytes_per_sm: float, count: int = 1, is_causal: bool = True
) -> Op:
    """Returns FlashAttention-1: the outer loop runs over K and V, so Q and O pass through HBM each time.

    Blocks of B_c = ceil(M / 4d) keys for an SRAM of M elements; Q is read, O is read and written N / B_c
    times. One CTA per sequence and head. Source: arXiv 2205.14135 Algorithm 1, Theorem 2 (Theta(N^2 d^2 / M)
    accesses); arXiv 2307.08691 section 3.2 (FlashAttention-1 is parallel over batch and heads only).
    """
    width = DTYPE_BYTES[shape.dtype]
    keys_per_block = ceil(sram_bytes_per_sm / width / (4 * shape.qk_head_dim))
    passes = ceil(seq_len / keys_per_block)
    pass_bytes = shape.num_q_heads * (shape.qk_head_dim + 2 * shape.v_head_dim) * width
    pairs = attention_pairs(seq_len, 0) if is_causal else seq_len * seq_len
    return Op(
        kind="flash1_attention",
        flops=float(count * pairs * shape.flops_per_pair),
        num_tiles=count * shape.num_q_heads,
        vector_flops=float(count * pairs * shape.vector_flops_per_pair),
        hbm_bytes=count * seq_len * (shape.kv_bytes_per_token + passes * pass_bytes),
        dtype=shape.dtype,
    )
