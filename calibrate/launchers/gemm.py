"""Products: cuBLAS through torch, and ours with the fastest of their tiles; weights of 16, 8 and 4 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil

import torch

from ...hwmodels.op_gemm import LEAST_TILED_ROWS, MOST_STREAMING_ROWS
from ...hwmodels.op_point import ACTIVATION_DTYPE, EIGHT_BIT, OpPoint
from ...kernels import gemm, gemm_block_scaled, gemm_quantized, gemm_split_k, gemm_weight_only
from ...kernels.tuning import Config
from ..buffers import Pools, num_copies
from .maker import Launch, Maker

_ORDER_AND_DEPTH = ("GROUP_M", "FLATTEN", "STAGES")


def _gemm_operands(point: OpPoint, pools: Pools) -> tuple[torch.Tensor, list[torch.Tensor]]:
    a = pools.take(point.dtype, point.m, point.k)
    copies = num_copies(point.n * point.k * a.itemsize)
    return a, [pools.take(point.dtype, point.n, point.k) for _ in range(copies)]


def _cublas_gemm(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """fp8: per-tensor scales with fast accumulation, as vLLM calls it; int8 gives int32."""
    a, weights = _gemm_operands(point, pools)
    multiply: Callable[..., object] = torch._int_mm if point.dtype == "int8" else torch.mm
    if point.dtype == "fp8":
        scale = torch.ones((), device=pools.device)
        multiply = partial(
            torch._scaled_mm, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return [[partial(multiply, a, b.t()) for b in weights]]


def _triton_gemm(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """One alternative per tile: whole tiles over TMA, and for few rows the kernel that splits k."""
    a, weights = _gemm_operands(point, pools)
    configs = {config_tile(config): config for config in gemm.candidates(a.dtype) if is_plain(config)}
    tiled = (None, *configs.values())
    if point.dtype in EIGHT_BIT:
        scales = [torch.ones(size, device=pools.device) for size in (point.m, point.n)]
        return [
            [partial(gemm_quantized.scaled_matmul, a, b, *scales, config=config) for b in weights]
            for config in tiled
        ]
    ways: list[list[Launch]] = []
    if point.m >= LEAST_TILED_ROWS:
        ways += [[partial(gemm.matmul, a, b, config=config) for b in weights] for config in tiled]
    if point.m <= MOST_STREAMING_ROWS:
        splitting = [config for config in gemm_split_k.candidates(point.m) if is_tried(config)]
        ways += [
            [partial(gemm_split_k.matmul_split_k, a, b, config=config) for b in weights]
            for config in (None, *splitting)
        ]
    return ways


def _block_scaled_operands(
    point: OpPoint, pools: Pools
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Returns a, its scales (m, k / 128) with m contiguous, weights, their scales (n / 128, k / 128)."""
    a, weights = _gemm_operands(point, pools)
    blocks = point.k // gemm_block_scaled.SCALE_BLOCK
    a_scale = torch.rand(blocks, point.m, device=pools.device).T
    b_scale = torch.rand(ceil(point.n / gemm_block_scaled.SCALE_BLOCK), blocks, device=pools.device)
    return a, a_scale, weights, b_scale


def _triton_block_scaled(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    a, a_scale, weights, b_scale = _block_scaled_operands(point, pools)
    tiles = {config_cut(config): config for config in gemm_block_scaled.candidates()}
    multiply = gemm_block_scaled.block_scaled_matmul
    return [
        [partial(multiply, a, b, a_scale, b_scale, config=config) for b in weights]
        for config in (None, *tiles.values())
    ]


def _cublas_block_scaled(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    a, a_scale, weights, b_scale = _block_scaled_operands(point, pools)
    multiply = partial(torch._scaled_mm, scale_a=a_scale, scale_b=b_scale.T, out_dtype=torch.bfloat16)
    return [[partial(multiply, a, b.t()) for b in weights]]


def _triton_weight_only(point: OpPoint, pools: Pools) -> list[list[Launch]]:
    """One alternative per width of tile and split; codes are random bytes, scales alike for all buffers."""
    a = pools.take(ACTIVATION_DTYPE, point.m, point.k)
    is_int4 = point.dtype == "int4"
    columns = point.k // 2 if is_int4 else point.k
    copies = num_copies(point.n * columns)
    codes = [pools.take("int8", point.n, columns) for _ in range(copies)]
    scales = torch.rand(point.n, point.k // gemm_weight_only.GROUP_SIZE, device=pools.device)
    zeros = torch.full_like(scales, 8.0) if is_int4 else None
    weights = [code.view(torch.uint8) if is_int4 else code for code in codes]
    tried = [config for config in gemm_weight_only.candidates(point.m) if is_tried_weight_only(config)]
    multiply = gemm_weight_only.weight_only_matmul
    return [
        [partial(multiply, a, w, scales, zeros, config=config) for w in weights] for config in (None, *tried)
    ]


def config_tile(config: Config) -> tuple[int, int, int]:
    """Returns rows, columns and CTAs per SM of a configuration."""
    return int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]), config.ctas_per_sm


def config_cut(config: Config) -> tuple[object, ...]:
    """Returns how a configuration cuts the work; those that differ in order and depth alone are alike."""
    cut = {name: value for name, value in config.meta.items() if name not in _ORDER_AND_DEPTH}
    return (*sorted(cut.items()), config.num_warps, config.ctas_per_sm)


def is_plain(config: Config) -> bool:
    """Returns whether a configuration is the one tried of its tile; the others differ by little."""
    return bool(config.meta["FLATTEN"] and config.meta["SPLIT_STORE"]) and config.meta["GROUP_M"] == 8


def is_tried(config: Config) -> bool:
    """Returns whether a configuration of the split-k kernel is tried: narrow and wide, whole and split."""
    meta = config.meta
    return (
        config.num_stages == 4
        and meta["BLOCK_K"] == 128
        and meta["BLOCK_N"] in (32, 128)
        and meta["SPLITS"] in (1, 4)
    )


def is_tried_weight_only(config: Config) -> bool:
    """Returns whether a configuration of the weight-only kernel is tried: wide tiles, whole and split."""
    meta = config.meta
    return (
        config.num_stages == 4
        and config.num_warps == 4
        and meta["BLOCK_N"] == 128
        and meta["SPLITS"] in (1, 4)
    )


MAKERS: Mapping[tuple[str, str], Maker] = {
    ("gemm", "cublas"): _cublas_gemm,
    ("gemm", "triton"): _triton_gemm,
    ("gemm_block_scaled", "cublas"): _cublas_block_scaled,
    ("gemm_block_scaled", "triton"): _triton_block_scaled,
    ("gemm_weight_only", "triton"): _triton_weight_only,
}
