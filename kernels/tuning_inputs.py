"""What tuning and benchmarks measure on: cases with candidates, random inputs, references by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .tuning import Config

Launch = Callable[[Config], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel at one shape; `prepare` makes fresh random inputs and returns (launch, reference output)."""

    kernel: str
    variant: str
    shape: tuple[int, ...]
    candidates: Sequence[Config]
    prepare: Callable[[], tuple[Launch, torch.Tensor]]

    @property
    def name(self) -> str:
        """The case on one line."""
        return f"{self.kernel} {self.variant} {'x'.join(map(str, self.shape))}"


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Returns standard normal numbers on the GPU; for int8 as if their largest, at 4 sigma, had code 127."""
    if dtype == torch.int8:
        return (torch.randn(shape, device="cuda") * 32).round().clamp(-127, 127).to(dtype)
    return torch.randn(shape, dtype=torch.bfloat16 if dtype.itemsize == 1 else dtype, device="cuda").to(dtype)


def paged(rows: torch.Tensor, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (cache, pages): `rows` (tokens, heads, dim) laid out in pages of a random order."""
    blocks = rows.unflatten(0, (-1, block_size))
    order = torch.randperm(blocks.shape[0], device=rows.device)
    cache = torch.empty_like(blocks)
    cache[order] = blocks
    return cache, order.int()


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Returns torch's causal attention of q (tokens, heads, dim) over k, v (tokens, kv_heads, dim)."""
    batched = (rows.transpose(0, 1)[None] for rows in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*batched, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1)
