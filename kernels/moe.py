"""Mixture of experts: choose experts, sort rows by expert, one product over all experts, add up the choices.

Shapes: logits (num_tokens, num_experts) -> weights fp32, experts int32 (num_tokens, top_k); x (num_tokens,
k); expert weights (num_experts, n, k); out of the product (num_tokens * top_k, n), row t * top_k + j for
choice j of token t; combined (num_tokens, n). The plan lists the rows expert by expert, each expert padded to
whole tiles.
Papers: sparsely-gated MoE, arXiv 1701.06538; MegaBlocks, arXiv 2211.15841 (no token dropped, uneven experts
in one launch); softmax before top-k as in Mixtral (arXiv 2401.04088), weights renormalised over the choices
if asked.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from . import moe_hopper
from .gemm import DTYPE_NAMES
from .moe_plan import Plan, plan_tiles
from .tuning import Config, tuned_config

__all__ = ["Plan", "combine", "grouped_matmul", "plan_tiles", "route"]


@triton.jit
def _route_kernel(
    logits_ptr, weights_ptr, experts_ptr, num_experts,
    TOP_K: tl.constexpr, RENORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (num_tokens,): softmax, then the largest probability TOP_K times; ties go to the lower expert."""
    token = tl.program_id(0)
    experts = tl.arange(0, BLOCK)
    is_expert = experts < num_experts
    logits = tl.load(logits_ptr + token * num_experts + experts, mask=is_expert, other=float("-inf")).to(
        tl.float32
    )
    shifted = tl.exp(logits - tl.max(logits, 0))
    total = tl.sum(shifted, 0)
    if RENORMALIZE:
        left = shifted
        total = 0.0
        for _ in tl.static_range(TOP_K):
            total += tl.max(left, 0)
            left = tl.where(experts == tl.argmax(left, 0), -1.0, left)
    for choice in tl.static_range(TOP_K):
        expert = tl.argmax(shifted, 0)
        tl.store(experts_ptr + token * TOP_K + choice, expert.to(tl.int32))
        tl.store(weights_ptr + token * TOP_K + choice, tl.max(shifted, 0) / total)
        shifted = tl.where(experts == expert, -1.0, shifted)


@triton.jit
def _grouped_gemm_kernel(
    x_ptr, w_desc, out_ptr, rows_ptr, tile_experts_ptr, num_tiles_ptr,
    # dimensions
    num_rows, n, k,
    TOP_K: tl.constexpr, EVEN_K: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """Grid (tiles,), GROUP_M tiles of rows at a time; w (num_experts, n, k). Row num_rows is padding."""
    num_n_tiles = tl.cdiv(n, BLOCK_N)
    tiles_per_group = GROUP_M * num_n_tiles
    first_m = tl.program_id(0) // tiles_per_group * GROUP_M
    num_m_tiles = tl.load(num_tiles_ptr)
    rows_in_group = tl.minimum(num_m_tiles - first_m, GROUP_M)
    if rows_in_group > 0:
        pid_m = first_m + (tl.program_id(0) % tiles_per_group) % rows_in_group
        pid_n = (tl.program_id(0) % tiles_per_group) // rows_in_group
        if pid_n < num_n_tiles:
            expert = tl.load(tile_experts_ptr + pid_m)
            rows = tl.load(rows_ptr + pid_m * BLOCK_M + tl.arange(0, BLOCK_M))
            is_row = rows < num_rows
            tokens = tl.where(is_row, rows // TOP_K, 0).to(tl.int64)
            depths = tl.arange(0, BLOCK_K)
            x_rows = x_ptr + tokens[:, None] * k + depths[None, :]
            acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
            for start in tl.range(0, k, BLOCK_K):
                if EVEN_K:
                    x = tl.load(x_rows + start)
                else:
                    x = tl.load(x_rows + start, mask=(start + depths < k)[None, :], other=0.0)
                w = w_desc.load([expert, pid_n * BLOCK_N, start]).reshape(BLOCK_N, BLOCK_K)
                acc = tl.dot(x, w.T, acc)
            columns = pid_n * BLOCK_N + tl.arange(0, BLOCK_N)
            targets = out_ptr + rows.to(tl.int64)[:, None] * n + columns[None, :]
            tl.store(targets, acc.to(out_ptr.dtype.element_ty), mask=is_row[:, None] & (columns < n)[None, :])


@triton.jit
def _combine_kernel(y_ptr, weights_ptr, out_ptr, n, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (column blocks, num_tokens)."""
    token = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < n
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for choice in tl.static_range(TOP_K):
        y = tl.load(y_ptr + (token * TOP_K + choice) * n + columns, mask=is_column, other=0.0)
        total += y.to(tl.float32) * tl.load(weights_ptr + token * TOP_K + choice)
    tl.store(out_ptr + token * n + columns, total.to(out_ptr.dtype.element_ty), mask=is_column)


def route(
    logits: torch.Tensor, top_k: int, *, is_renormalized: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (weights fp32, experts int32), each (num_tokens, top_k), best first.

    Raises: ValueError if logits is no contiguous matrix or top_k exceeds its columns.
    """
    if logits.ndim != 2 or not logits.is_contiguous() or not 0 < top_k <= logits.shape[1]:
        raise ValueError(
            f"expected contiguous logits with at least {top_k} columns, got {tuple(logits.shape)}"
        )
    num_tokens, num_experts = logits.shape
    weights = torch.empty((num_tokens, top_k), dtype=torch.float32, device=logits.device)
    experts = torch.empty((num_tokens, top_k), dtype=torch.int32, device=logits.device)
    _route_kernel[(num_tokens,)](
        logits, weights, experts, num_experts,
        TOP_K=top_k, RENORMALIZE=is_renormalized, BLOCK=triton.next_power_of_2(num_experts), num_warps=1,
    )  # fmt: skip
    return weights, experts


def candidates(block_m: int) -> list[Config]:
    """Returns the configurations that tuning tries for tiles of `block_m` rows."""
    portable = [
        Config({"BLOCK_N": block_n, "BLOCK_K": block_k, "GROUP_M": group_m}, warps, stages)
        for block_n, warps in ((64, 4), (128, 4), (128, 8), (256, 8))
        for block_k in (64, 128)
        for group_m in (1, 8)
        for stages in (3, 4)
    ]
    return [*moe_hopper.candidates(block_m), *portable]


def default_config() -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    return Config({"BLOCK_N": 128, "BLOCK_K": 64, "GROUP_M": 8}, 4, 3)


def grouped_matmul(
    x: torch.Tensor, w: torch.Tensor, plan: Plan, *, is_expanded: bool = False, config: Config | None = None
) -> torch.Tensor:
    """Returns every row times its expert's weight: (num_rows, n), row t * top_k + j for choice j of token t.

    is_expanded: x already has one row per choice (num_tokens * top_k, k), as the second product of an expert
    has.
    Raises: ValueError if shapes or dtypes do not fit, or k is no multiple of 16 bytes.
    """
    if x.ndim != 2 or w.ndim != 3 or x.shape[1] != w.shape[2] or x.dtype != w.dtype:
        raise ValueError(
            f"expected x (rows, k), w (experts, n, k), got {x.dtype} {x.shape} and {w.dtype} {w.shape}"
        )
    if not (x.is_contiguous() and w.is_contiguous()) or x.shape[1] * x.itemsize % 16:
        raise ValueError(f"x and w must be contiguous with rows of whole 16 bytes, got k = {x.shape[1]}")
    num_experts, n, k = w.shape
    expansion = 1 if is_expanded else plan.top_k
    num_rows = x.shape[0] * expansion
    out = torch.empty((num_rows, n), dtype=x.dtype, device=x.device)
    shape = (num_rows, n, k, num_experts)
    variant = f"{DTYPE_NAMES[x.dtype]}.rows{plan.block_m}"
    chosen = config or tuned_config("grouped_gemm", variant, shape, x.device) or default_config()
    if "IS_HOPPER" in chosen.meta:
        return moe_hopper.launch_hopper(x, w, plan, out, expansion, chosen)
    block_n, block_k = chosen.meta["BLOCK_N"], chosen.meta["BLOCK_K"]
    group_m = chosen.meta["GROUP_M"]
    m_groups = triton.cdiv(plan.tile_experts.numel(), group_m)
    _grouped_gemm_kernel[(m_groups * group_m * triton.cdiv(n, block_n),)](
        x, TensorDescriptor.from_tensor(w, [1, block_n, block_k]), out,
        plan.rows, plan.tile_experts, plan.num_tiles, num_rows, n, k,
        TOP_K=expansion, EVEN_K=k % block_k == 0, BLOCK_M=plan.block_m, **chosen.launch_options(),
    )  # fmt: skip
    return out


def combine(y: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns the weighted sum of each token's choices, (num_tokens, n), of y (num_tokens * top_k, n)."""
    num_tokens, top_k = weights.shape
    if y.shape[0] != num_tokens * top_k or not y.is_contiguous():
        raise ValueError(f"expected contiguous y of {num_tokens * top_k} rows, got {tuple(y.shape)}")
    n = y.shape[1]
    out = torch.empty((num_tokens, n), dtype=y.dtype, device=y.device)
    block = min(2048, triton.next_power_of_2(n))
    _combine_kernel[(triton.cdiv(n, block), num_tokens)](y, weights, out, n, TOP_K=top_k, BLOCK=block)
    return out


def route_oracle(
    logits: torch.Tensor, top_k: int, *, is_renormalized: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `route` should, in float64."""
    weights, experts = logits.double().softmax(-1).topk(top_k, dim=-1)
    if is_renormalized:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, experts


def grouped_oracle(x: torch.Tensor, w: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """Returns what `grouped_matmul` should for x (num_tokens, k), in float64."""
    rows = x.double().repeat_interleave(experts.shape[1], 0)
    return torch.einsum("rk,rnk->rn", rows, w.double()[experts.flatten().long()])


def launch_work(
    num_tokens: int,
    n: int,
    k: int,
    *,
    num_experts: int,
    top_k: int,
    dtype: torch.dtype,
    block_m: int,
    config: Config,
) -> ops.Op:
    """Returns the FLOPs and bytes of `grouped_matmul` with evenly drawn experts."""
    tile = ops.Tile(block_m, int(config.meta["BLOCK_N"]))
    name = DTYPE_NAMES[dtype]
    return ops.grouped_gemm(num_tokens, n, k, name, num_experts=num_experts, top_k=top_k, tile=tile)
