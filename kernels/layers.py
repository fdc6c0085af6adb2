"""torch's layers over our kernels: Linear, Conv2d, Attention and RMSNorm, with torch's own signatures.

Each layer is a subclass of torch's, so that weights load as usual, and calls one operator of the library
`simllm`, which `torch.compile` takes as it is, also with `fullgraph=True`; `Attention` is torch's
`scaled_dot_product_attention` as a layer. Inference only: no operator has a gradient.
Shapes are torch's: images (batch, channels, height, width), heads (batch, heads, tokens, head_dim). The
kernels want channels and heads last; tensors that lie so in memory (`channels_last`, heads transposed from a
projection's output) are passed on, others are copied first.
"""

from __future__ import annotations

import torch
from torch import nn

from .attention_decode import decode_attention
from .attention_prefill import Chunks, are_heads_together, prefill_attention
from .conv2d import conv2d
from .elementwise import silu_mul
from .linear import linear
from .norm import rms_norm

FEW_CHANNELS = 8  # below which a tap alone would leave most of a step of k empty
PAGE_SIZES = (64, 32, 16)  # of contiguous keys seen as pages, best first


@torch.library.custom_op(
    "simllm::linear", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
)
def linear_op(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns x @ weight.T + bias for x (..., in_features), weight (out_features, in_features)."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    return linear(rows, weight, bias).view(*x.shape[:-1], -1)


@linear_op.register_fake
def _linear_shape(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op(
    "simllm::conv2d", mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, int stride, int padding) -> Tensor",
)  # fmt: skip
def conv2d_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
) -> torch.Tensor:
    """Returns the convolution of x (batch, channels, height, width), with channels last in memory."""
    x_last, weight_last = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (x, weight))
    if padding and x.shape[1] < FEW_CHANNELS:
        # Padded beforehand, the taps of a kernel row are one piece of x: a step of k holds them all.
        x_last = nn.functional.pad(x_last, (0, 0, padding, padding, padding, padding))
        padding = 0
    return conv2d(x_last, weight_last, bias=bias, stride=stride, padding=padding).permute(0, 3, 1, 2)


@conv2d_op.register_fake
def _conv2d_shape(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
) -> torch.Tensor:
    sides = ((x.shape[dim] + 2 * padding - weight.shape[dim]) // stride + 1 for dim in (2, 3))
    shape = (x.shape[0], weight.shape[0], *sides)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op(
    "simllm::rms_norm", mutates_args=(), schema="(Tensor x, Tensor weight, float eps) -> Tensor"
)
def rms_norm_op(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Returns RMSNorm over the last dimension of x (..., hidden_size)."""
    return rms_norm(x.reshape(-1, x.shape[-1]).contiguous(), weight, epsilon=eps)[0].view(x.shape)


@rms_norm_op.register_fake
def _rms_norm_shape(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("simllm::silu_mul", mutates_args=(), schema="(Tensor gate_up) -> Tensor")
def silu_mul_op(gate_up: torch.Tensor) -> torch.Tensor:
    """Returns SiLU of the left half of gate_up (..., 2 * intermediate) times the right half."""
    out = silu_mul(gate_up.reshape(-1, gate_up.shape[-1]).contiguous())
    return out.view(*gate_up.shape[:-1], -1)


@silu_mul_op.register_fake
def _silu_mul_shape(gate_up: torch.Tensor) -> torch.Tensor:
    return gate_up.new_empty(*gate_up.shape[:-1], gate_up.shape[-1] // 2)


@torch.library.custom_op(
    "simllm::attention", mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, bool is_causal, float? scale) -> Tensor",
)  # fmt: skip
def attention_op(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool, scale: float | None
) -> torch.Tensor:
    """Returns attention of query (batch, heads, tokens, head_dim), with heads last in memory.

    One query token runs on the decode kernel, which splits the keys over all SMs.
    """
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    batch, num_queries, num_keys = q.shape[0], q.shape[1], k.shape[1]
    page = next((size for size in PAGE_SIZES if num_keys % size == 0), None)
    if num_queries == 1 and page is not None:
        num_pages = num_keys // page
        table = torch.arange(batch * num_pages, dtype=torch.int32, device=q.device).view(batch, -1)
        lens = torch.full((batch,), num_keys, dtype=torch.int32, device=q.device)
        k_pages, v_pages = (rows.contiguous().view(-1, page, *rows.shape[2:]) for rows in (k, v))
        out = decode_attention(
            q.contiguous(), k_pages, v_pages, table, lens, max_context_len=num_keys, scale=scale
        )
    else:
        chunks = _equal_chunks(batch, num_queries, num_keys, q.device)
        q_rows, k_rows, v_rows = (_head_rows(tensor) for tensor in (q, k, v))
        rows = prefill_attention(q_rows, k_rows, v_rows, chunks, is_causal=is_causal, scale=scale)
        out = rows.view(q.shape)
    return out.transpose(1, 2)


def _head_rows(x: torch.Tensor) -> torch.Tensor:
    """Returns x (batch, tokens, heads, head_dim) as (batch * tokens, heads, head_dim), copied if need be."""
    rows = x.flatten(0, 1)
    return rows if are_heads_together(rows) else rows.contiguous()


def _equal_chunks(batch: int, num_queries: int, num_keys: int, device: torch.device) -> Chunks:
    """Returns `Chunks.of` equal requests, made on the device: no copy waits for it, a graph may hold it."""

    def starts(length: int) -> torch.Tensor:
        return torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=device)

    query_starts = starts(num_queries)
    kv_starts = query_starts if num_queries == num_keys else starts(num_keys)
    return Chunks(query_starts, kv_starts, num_queries, num_keys, batch * num_keys)


@attention_op.register_fake
def _attention_shape(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool, scale: float | None
) -> torch.Tensor:
    return query.new_empty(query.transpose(1, 2).shape).transpose(1, 2)


class Linear(nn.Linear):  # type: ignore[misc]
    """`torch.nn.Linear` on `gemm` and `gemm_split_k`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns (..., out_features) for input (..., in_features)."""
        return linear_op(input, self.weight, self.bias)


class Conv2d(nn.Conv2d):  # type: ignore[misc]
    """`torch.nn.Conv2d` on `conv2d`: one group, no dilation, the same stride and zeros on all sides."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1,
        padding: int = 0, dilation: int = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        """Raises: ValueError for groups, dilation or padding that the kernel does not have."""
        if not isinstance(stride, int) or not isinstance(padding, int):
            raise ValueError(f"stride and padding must be one number each, got {stride} and {padding}")
        if (dilation, groups, padding_mode) != (1, 1, "zeros"):
            raise ValueError(
                f"dilation, groups and padding_mode must be 1, 1 and 'zeros', got {dilation}, {groups} and "
                f"{padding_mode!r}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, bias=bias, device=device, dtype=dtype
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns (batch, out_channels, out_h, out_w), channels last in memory."""
        return conv2d_op(input, self.weight, self.bias, self.stride[0], self.padding[0])


class RMSNorm(nn.RMSNorm):  # type: ignore[misc]
    """`torch.nn.RMSNorm` on `norm`, over the last dimension and with a weight."""

    def __init__(
        self, normalized_shape: int, eps: float | None = None, elementwise_affine: bool = True,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        """Raises: ValueError if more than the last dimension is normalised, or no weight is wanted."""
        if not isinstance(normalized_shape, int) or not elementwise_affine:
            raise ValueError(f"expected one dimension and a weight, got {normalized_shape}")
        super().__init__(normalized_shape, eps, elementwise_affine, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x (..., hidden_size) divided by the root of its mean square, times the weight."""
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return rms_norm_op(x, self.weight, eps)


class Attention(nn.Module):  # type: ignore[misc]
    """`torch.nn.functional.scaled_dot_product_attention` as a layer, on the prefill and decode kernels."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        attn_mask: torch.Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """Returns (batch, heads, tokens, head_dim) for key, value (batch, kv_heads, keys, head_dim).

        Raises: ValueError for a mask or dropout, for fewer KV heads without enable_gqa, and for is_causal
        with more keys than queries: torch aligns the mask with the first key, the kernels with the last.
        """
        if attn_mask is not None or dropout_p:
            raise ValueError("the kernels have no attn_mask and no dropout_p, only is_causal")
        if query.shape[1] != key.shape[1] and not enable_gqa:
            raise ValueError(f"{query.shape[1]} heads over {key.shape[1]} KV heads need enable_gqa=True")
        if is_causal and query.shape[2] != key.shape[2]:
            raise ValueError(
                f"is_causal needs as many keys as queries, got {key.shape[2]} and {query.shape[2]}"
            )
        return attention_op(query, key, value, is_causal, scale)
