"""Grouped products over experts, with tokens that choose evenly or with a few favourites."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from ...hwmodels.op_point import OpPoint, work
from ...kernels import moe
from ..buffers import Pools, num_copies
from .maker import Launch, Maker

_SMALLEST_TILE_ROWS, _LARGEST_TILE_ROWS = 16, 128


def choice_scores(num_tokens: int, num_experts: int, skew: float, device: torch.device) -> torch.Tensor:
    """Returns scores (num_tokens, num_experts) whose top k draw experts by weight i^-skew, none twice.

    The logarithm of a weight plus Gumbel noise: the largest one is a draw by weight, the next one a draw from
    the rest. Source: Plackett-Luce model; Kool et al., arXiv 1903.06059, section 2.3 (Gumbel top-k).
    """
    ranks = torch.arange(1, num_experts + 1, device=device, dtype=torch.float32)
    uniform = torch.rand(num_tokens, num_experts, device=device).clamp_(min=1e-20)
    return -skew * ranks.log() - (-uniform.log()).log()


def _triton_moe(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """The tile has about as many rows as an expert has tokens."""
    x = pools.take(point.dtype, point.m, point.k)
    shape = (point.num_experts, point.n, point.k)
    copies = num_copies(work(point).hbm_bytes)
    scores = choice_scores(point.m, point.num_experts, point.skew, pools.device)
    _, experts = moe.route(scores, point.top_k)
    rows = point.m * point.top_k // point.num_experts
    tile_rows = min(_LARGEST_TILE_ROWS, max(_SMALLEST_TILE_ROWS, 1 << max(0, rows - 1).bit_length()))
    plan = moe.plan_tiles(experts, point.num_experts, tile_rows)
    weights = [pools.take(point.dtype, *shape) for _ in range(copies)]
    return [[partial(moe.grouped_matmul, x, w, plan) for w in weights]]


MAKERS: Mapping[tuple[str, str], Maker] = {("grouped_gemm", "triton"): _triton_moe}
