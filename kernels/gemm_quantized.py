"""8-bit matrix products: fp8 e4m3 with one scale per tensor, int8 with a scale per token and per channel.

Shapes: a (m, k) and b (n, k) in fp8 or int8, both k-major; scales fp32: a_scale (m,) or (1,), b_scale (n,) or
(1,); out (m, n) in bf16 or fp16. The scales are applied to the accumulator, inside the product's own launch.
Papers: FP8 formats, arXiv 2209.05433; SmoothQuant (W8A8 with per-token and per-channel scales), arXiv
2211.10438. fp8 accumulates as the tensor core does (`use_fast_accum` of `torch._scaled_mm`): 14 bits between
additions, not fp32.
"""

from __future__ import annotations

import torch

from ..hwmodels import ops
from . import gemm, gemm_hopper
from .gemm import DTYPE_NAMES, check_operands, default_config, launch_gemm
from .hopper import is_hopper
from .tuning import Config, tuned_config


def candidates(dtype: torch.dtype) -> list[Config]:
    """Returns the configurations that tuning tries."""
    hopper = gemm_hopper.candidates() if is_hopper() else []
    return [*hopper, *gemm.candidates(dtype)]


def scaled_matmul(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor, *,
    out_dtype: torch.dtype = torch.bfloat16, bias: torch.Tensor | None = None, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns (a * a_scale[:, None]) @ (b * b_scale[:, None]).T (+ bias), (m, n), in `out_dtype`.

    Raises: ValueError if a and b are not both fp8 or int8, or scales or strides do not fit.
    """
    check_operands(a, b)
    if a.dtype not in (torch.float8_e4m3fn, torch.int8):
        raise ValueError(f"expected fp8 e4m3 or int8, got {a.dtype}")
    m, n = a.shape[0], b.shape[0]
    out = torch.empty((m, n), dtype=out_dtype, device=a.device)
    shape = (m, n, a.shape[1])
    tuned = tuned_config("gemm_quantized", DTYPE_NAMES[a.dtype], shape, a.device)
    chosen = config or tuned or default_config(m, a.dtype)
    launch = gemm_hopper.launch_scaled if "IS_HOPPER" in chosen.meta else launch_gemm
    return launch(a, b, out, chosen, bias=bias, row_scale=_full(a_scale, m), col_scale=_full(b_scale, n))


def _full(scale: torch.Tensor, length: int) -> torch.Tensor:
    if scale.dtype != torch.float32 or scale.numel() not in (1, length):
        raise ValueError(f"expected 1 or {length} fp32 scales, got {scale.dtype} {tuple(scale.shape)}")
    return scale.reshape(-1).expand(length).contiguous()


def scaled_matmul_oracle(
    a: torch.Tensor,
    b: torch.Tensor,
    a_scale: torch.Tensor,
    b_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns what `scaled_matmul` should, in float64."""
    product = (a.double() * a_scale.double().reshape(-1, 1)) @ (
        b.double() * b_scale.double().reshape(-1, 1)
    ).T
    return product if bias is None else product + bias.double()


def launch_work(m: int, n: int, k: int, dtype: torch.dtype, config: Config) -> ops.Op:
    """Returns the FLOPs and bytes of `scaled_matmul` into 16 bits with this configuration."""
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(m, n, k, DTYPE_NAMES[dtype], out_dtype="bf16", tile=tile)
