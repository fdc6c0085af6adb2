"""The vision tower's own kernels: attention over whole images or windows, patch embedding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as functional

from ...hwmodels.op_point import OpPoint
from ...kernels.attention_prefill import Chunks, prefill_attention
from ...kernels.conv2d import conv2d
from ..buffers import Pools
from .maker import Launch, Maker

NUM_LAUNCHES = 8


def _triton_attention(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """Images or windows lie one behind the other, each seeing only itself."""
    shape = (point.batch * point.query_len, point.num_q_heads, point.head_dim)
    q, k, v = (pools.take(point.dtype, *shape) for _ in range(3))
    lens = [point.query_len] * point.batch
    chunks = Chunks.of(lens, lens, pools.device)
    return [[partial(prefill_attention, q, k, v, chunks, is_causal=False)] * NUM_LAUNCHES]


def _batched(point: OpPoint, pools: Pools) -> list[torch.Tensor]:
    """Returns q, k and v, each (batch, heads, patches, head_dim), as views of token-major rows."""
    shape = (point.batch, point.query_len, point.num_q_heads, point.head_dim)
    return [pools.take(point.dtype, *shape).transpose(1, 2) for _ in range(3)]


def _flash_attention(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    q, k, v = _batched(point, pools)
    if point.head_dim % 8:
        raise ValueError(f"FlashAttention needs head_dim in eights, got {point.head_dim}")
    return [[partial(flash, q, k, v, 0.0, False)] * NUM_LAUNCHES]


def _cudnn_attention(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    q, k, v = _batched(point, pools)

    def attend() -> torch.Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return functional.scaled_dot_product_attention(q, k, v)

    return [[attend] * NUM_LAUNCHES]


def _patch_operands(point: OpPoint, pools: Pools) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns one strip of all patches side by side and the filters, channels last.

    Colours and frames are channels: a filter sees each of its pixels once either way.
    """
    side = point.kernel_size
    channels = point.k // side**2
    pixels = pools.take(point.dtype, 1, side, point.m * side, channels)
    return pixels, pools.take(point.dtype, point.n, side, side, channels)


def _triton_patch_embed(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    pixels, filters = _patch_operands(point, pools)
    return [[partial(conv2d, pixels, filters, stride=point.kernel_size)] * NUM_LAUNCHES]


def _cudnn_patch_embed(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    pixels, filters = (tensor.permute(0, 3, 1, 2) for tensor in _patch_operands(point, pools))
    return [[partial(functional.conv2d, pixels, filters, stride=point.kernel_size)] * NUM_LAUNCHES]


MAKERS: Mapping[tuple[str, str], Maker] = {
    ("attention_vision", "triton"): _triton_attention,
    ("attention_vision", "sdpa-flash"): _flash_attention,
    ("attention_vision", "sdpa-cudnn"): _cudnn_attention,
    ("patch_embed", "triton"): _triton_patch_embed,
    ("patch_embed", "cudnn"): _cudnn_patch_embed,
}
