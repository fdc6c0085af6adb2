"""Everything between the matrix products: norms, activations, positions, gathers and sampling.

All of it is bound by bytes; the FLOPs are given for completeness.
SIMPLIFIED: activations are read from HBM even where L2 still holds them; effect: up to 2x too slow on
steps of a few hundred tokens, where these ops are some percent of the step.
"""

from __future__ import annotations

from ...units import DTYPE_BYTES
from .op import Op, Sizes

# Passes over the fp32 logits of one sampled row: written, scaled by the temperature (read, write), softmax
# (read twice, write), noise and argmax (read).
# Source: PyTorch-level sampling as in vLLM's `Sampler` (temperature, softmax, exponential noise, argmax).
SAMPLING_PASSES = 7
SAMPLING_KERNELS = 10


def elementwise(
    kind: str,
    *,
    num_read: float,
    num_written: float,
    dtype: str,
    flops: float = 0.0,
    num_kernels: int = 1,
    sizes: Sizes | None = None,
) -> Op:
    """Returns a pass over `num_read` elements that writes `num_written`."""
    hbm_bytes = (num_read + num_written) * DTYPE_BYTES[dtype]
    return Op(kind, flops, hbm_bytes, dtype, unit="vector", num_kernels=num_kernels, sizes=sizes)


def rms_norm(num_tokens: int, hidden_size: int, dtype: str, *, has_residual: bool = True) -> Op:
    """Returns RMSNorm; with the residual fused, both are read and both are written."""
    elements = num_tokens * hidden_size
    passes = 2 if has_residual else 1
    return elementwise(
        "rms_norm",
        num_read=passes * elements,
        num_written=passes * elements,
        dtype=dtype,
        flops=5.0 * elements,
        sizes=Sizes(num_tokens, hidden_size),
    )


def layer_norm(num_tokens: int, hidden_size: int, dtype: str, *, has_residual: bool = True) -> Op:
    """Returns LayerNorm (mean and variance): the bytes of RMSNorm, some more FLOPs."""
    elements = num_tokens * hidden_size
    passes = 2 if has_residual else 1
    return elementwise(
        "layer_norm",
        num_read=passes * elements,
        num_written=passes * elements,
        dtype=dtype,
        flops=8.0 * elements,
        sizes=Sizes(num_tokens, hidden_size),
    )


def rope(num_tokens: int, num_heads: int, head_dim: int, dtype: str) -> Op:
    """Returns rotary positions applied in place to `num_heads` query and key heads together."""
    elements = num_tokens * num_heads * head_dim
    return elementwise("rope", num_read=elements, num_written=elements, dtype=dtype, flops=3.0 * elements)


def silu_mul(num_tokens: int, intermediate_size: int, dtype: str) -> Op:
    """Returns SiLU(gate) * up: two halves read, one written."""
    elements = num_tokens * intermediate_size
    return elementwise(
        "silu_mul",
        num_read=2 * elements,
        num_written=elements,
        dtype=dtype,
        flops=6.0 * elements,
        sizes=Sizes(num_tokens, intermediate_size),
    )


def activation(num_tokens: int, intermediate_size: int, dtype: str) -> Op:
    """Returns GELU or ReLU of a plain MLP: one read, one written."""
    elements = num_tokens * intermediate_size
    return elementwise(
        "activation", num_read=elements, num_written=elements, dtype=dtype, flops=8.0 * elements
    )


def embedding(num_tokens: int, hidden_size: int, dtype: str) -> Op:
    """Returns the gather of token embeddings."""
    elements = num_tokens * hidden_size
    return elementwise("embedding", num_read=elements, num_written=elements, dtype=dtype)


def kv_write(num_tokens: int, num_elements: int, dtype: str, kv_bytes_per_token: float) -> Op:
    """Returns the write of new keys and values (`num_elements` a token) into the paged cache."""
    hbm_bytes = num_tokens * (num_elements * DTYPE_BYTES[dtype] + kv_bytes_per_token)
    return Op("kv_write", 0.0, hbm_bytes, dtype, unit="vector")


def quantize(num_elements: int, dtype: str, quantized_dtype: str) -> Op:
    """Returns dynamic per-tensor quantisation: read for the maximum, read again to scale, written once."""
    hbm_bytes = num_elements * (2 * DTYPE_BYTES[dtype] + DTYPE_BYTES[quantized_dtype])
    return Op("quantize", 3.0 * num_elements, hbm_bytes, dtype, unit="vector", num_kernels=2)


def quantize_max(num_tokens: int, width: int, dtype: str, quantized_dtype: str) -> Op:
    """Returns the pass of dynamic per-tensor quantisation that finds the maximum: one read."""
    elements = num_tokens * width
    hbm_bytes = elements * DTYPE_BYTES[dtype]
    sizes = Sizes(num_tokens, width)
    return Op("quantize_max", float(elements), hbm_bytes, quantized_dtype, unit="vector", sizes=sizes)


def quantize_scaled(num_tokens: int, width: int, dtype: str, quantized_dtype: str) -> Op:
    """Returns the pass that scales and narrows: one read, one write."""
    elements = num_tokens * width
    hbm_bytes = elements * (DTYPE_BYTES[dtype] + DTYPE_BYTES[quantized_dtype])
    sizes = Sizes(num_tokens, width)
    return Op("quantize_scaled", 2.0 * elements, hbm_bytes, quantized_dtype, unit="vector", sizes=sizes)


def sampling(num_sampled: int, vocab_size: int, dtype: str) -> Op:
    """Returns sampling from logits (num_sampled, vocab_size): one read of `dtype`, then fp32 passes."""
    logits = num_sampled * vocab_size
    return Op(
        kind="sampling",
        flops=10.0 * logits,
        hbm_bytes=logits * (DTYPE_BYTES[dtype] + SAMPLING_PASSES * DTYPE_BYTES["fp32"]),
        dtype="fp32",
        unit="vector",
        num_kernels=SAMPLING_KERNELS,
    )
