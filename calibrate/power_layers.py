"""Steps of a whole transformer as one launch: our kernels around cuBLAS and torch's fused attention.

Weights are random and of a few layers that take turns, more than any L2 holds; so are the KV caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..kernels.attention_decode import decode_attention
from ..kernels.elementwise import rope_, rope_table, silu_mul
from ..kernels.norm import rms_norm

Step = Callable[[], torch.Tensor]
Attention = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of layer i, q (num_tokens, num_q_heads, head_dim), k and v (num_tokens, num_kv_heads, head_dim)."""

BLOCK_SIZE = 16
TABLE_BLOCKS = 16  # block tables are whole multiples of this wide, so that a kernel's tile never leaves them
MAX_POSITION = 4096
# Small enough that activations stay finite through all layers; a GPU draws the same power on any of them.
WEIGHT_SCALE = 1e-3
_BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]


@dataclass(frozen=True, slots=True)
class Sizes:
    """A dense gated transformer. num_weights: layers that have weights and caches of their own."""

    hidden: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    num_layers: int
    num_weights: int


LLAMA_8B = Sizes(4096, 32, 8, 128, 14336, 128256, 32, 8)  # Source: Llama-3.1-8B, config.json


class _Layer:
    """The weights of one layer, as torch.nn.functional.linear takes them."""

    def __init__(self, sizes: Sizes, random: Callable[..., torch.Tensor]) -> None:
        attention = sizes.num_q_heads * sizes.head_dim
        self.qkv = random(attention + 2 * sizes.num_kv_heads * sizes.head_dim, sizes.hidden)
        self.out = random(sizes.hidden, attention)
        self.gate_up = random(2 * sizes.intermediate, sizes.hidden)
        self.down = random(sizes.hidden, sizes.intermediate)
        self.norm = torch.ones_like(self.out[:, 0])


class Transformer:
    """Random weights on one device, and the steps that run on them."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        self._sizes, self._device, self._dtype = sizes, device, dtype
        self._layers = [_Layer(sizes, self._weight) for _ in range(sizes.num_weights)]
        self._head = self._weight(sizes.vocab, sizes.hidden)
        self._table = rope_table(MAX_POSITION, sizes.head_dim).to(device)

    def prefill(self, num_tokens: int, context_len: int) -> Step:
        """Returns a step of whole prompts of `context_len` tokens, num_tokens in all."""
        x, positions = self._normal(num_tokens, self._sizes.hidden), self._positions(num_tokens, context_len)
        num_prompts = num_tokens // context_len

        def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return self._sdpa(num_prompts, q, k, v)

        return lambda: functional.linear(self._forward(x, positions, attend)[:num_prompts], self._head)

    def decode(self, num_tokens: int, context_len: int) -> Step:
        """Returns a step of one token for each of `num_tokens` sequences of `context_len` tokens."""
        sizes, num_blocks = self._sizes, -(-context_len // BLOCK_SIZE)
        cache = (num_tokens * num_blocks, BLOCK_SIZE, sizes.num_kv_heads, sizes.head_dim)
        caches = [(self._normal(*cache), self._normal(*cache)) for _ in range(max(1, sizes.num_weights // 2))]
        order = torch.randperm(cache[0], device=self._device).to(torch.int32)
        table = functional.pad(order.view(num_tokens, num_blocks), (0, -num_blocks % TABLE_BLOCKS))
        lens = torch.full((num_tokens,), context_len, device=self._device, dtype=torch.int32)
        x, positions = self._normal(num_tokens, sizes.hidden), lens.long() - 1

        def attend(place: int, q: torch.Tensor, _: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
            keys, values = caches[place % len(caches)]
            return decode_attention(q[:, None], keys, values, table, lens, max_context_len=context_len)

        return lambda: functional.linear(self._forward(x, positions, attend), self._head).float().argmax(-1)

    def products(self, num_tokens: int, context_len: int) -> Step:
        """Returns the products and the attention of a prefill step alone."""
        sizes, num_prompts = self._sizes, num_tokens // context_len
        x, inner = self._normal(num_tokens, sizes.hidden), self._normal(num_tokens, sizes.intermediate)
        q, k, v = self._split(self._normal(num_tokens, self._layers[0].qkv.shape[0]))

        def run() -> torch.Tensor:
            for place in range(sizes.num_layers):
                layer = self._layers[place % sizes.num_weights]
                functional.linear(x, layer.qkv)
                attended = self._sdpa(num_prompts, q, k, v)
                functional.linear(attended.reshape(num_tokens, -1), layer.out)
                functional.linear(x, layer.gate_up)
                functional.linear(inner, layer.down)
            return functional.linear(x[:num_prompts], self._head)

        return run

    def _forward(self, x: torch.Tensor, positions: torch.Tensor, attend: Attention) -> torch.Tensor:
        """Returns what the last layer adds, (num_tokens, hidden)."""
        y = x
        for place in range(self._sizes.num_layers):
            layer = self._layers[place % self._sizes.num_weights]
            h, x = rms_norm(y, layer.norm, residual=x)
            q, k, v = self._split(functional.linear(h, layer.qkv))
            rope_(q, k, positions, self._table)
            attended = attend(place, q, k, v).reshape(x.shape[0], -1)
            h, x = rms_norm(functional.linear(attended, layer.out), layer.norm, residual=x)
            y = functional.linear(silu_mul(functional.linear(h, layer.gate_up)), layer.down)
        return y

    def _split(self, qkv: torch.Tensor) -> Sequence[torch.Tensor]:
        """Returns q, k and v, each contiguous (num_tokens, heads, head_dim)."""
        sizes = self._sizes
        heads = (sizes.num_q_heads, sizes.num_kv_heads, sizes.num_kv_heads)
        parts = qkv.split([count * sizes.head_dim for count in heads], dim=1)
        return [part.reshape(len(qkv), -1, sizes.head_dim).contiguous() for part in parts]

    def _sdpa(self, num_prompts: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Returns causal attention within prompts of equal length, (num_prompts, length, heads, head_dim)."""
        q, k, v = (part.view(num_prompts, -1, *part.shape[1:]).transpose(1, 2) for part in (q, k, v))
        with sdpa_kernel(_BACKENDS):
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2)

    def _positions(self, num_tokens: int, context_len: int) -> torch.Tensor:
        return torch.arange(num_tokens, device=self._device) % context_len

    def _weight(self, rows: int, columns: int) -> torch.Tensor:
        uniform = torch.rand(rows, columns, device=self._device)
        return ((2 * uniform - 1) * WEIGHT_SCALE).to(self._dtype)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, device=self._device, dtype=self._dtype)
