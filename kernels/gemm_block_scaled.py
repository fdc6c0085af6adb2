"""fp8 products with fine-grained scales: 1 x 128 of the activations, 128 x 128 of the weights.

Shapes: a (m, k) and b (n, k) in fp8 e4m3, k a multiple of 128; a_scale fp32 (m, k / 128), b_scale fp32
(ceil(n / 128), k / 128); out (m, n) in bf16 or fp16.
Paper: DeepSeek-V3, arXiv 2412.19437, section 3.3.2: the tensor core sums 128 products, then the scaled
partial sum is added in fp32 on the vector units, so that neither outliers nor the tensor core's short
accumulator spread errors.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from . import gemm_block_scaled_hopper
from .gemm import TMA_ALIGNMENT_BYTES, check_operands, tile_origin
from .hopper import is_hopper
from .tuning import Config, num_sms, tuned_config

SCALE_BLOCK = 128


@triton.jit
def _block_scaled_kernel(
    a_desc, b_desc, c_desc, a_scale_ptr, b_scale_ptr,
    # dimensions
    m, n, k,
    # strides
    stride_as_m, stride_as_k, stride_bs_n,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr, NUM_PROGRAMS: tl.constexpr,
    FLATTEN: tl.constexpr,
):  # fmt: skip
    """a (m, k), b (n, k), c (m, n), a_scale (m, k / 128), b_scale (n / 128, k / 128); BLOCK_N divides 128."""
    BLOCK_K: tl.constexpr = 128
    num_m_tiles = tl.cdiv(m, BLOCK_M)
    num_n_tiles = tl.cdiv(n, BLOCK_N)
    for tile in tl.range(tl.program_id(0), num_m_tiles * num_n_tiles, NUM_PROGRAMS, flatten=FLATTEN):
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        off_m = pid_m * BLOCK_M
        off_n = pid_n * BLOCK_N
        rows = off_m + tl.arange(0, BLOCK_M)
        acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(k // BLOCK_K):
            a = a_desc.load([off_m, step * BLOCK_K])
            b = b_desc.load([off_n, step * BLOCK_K])
            a_scale = tl.load(a_scale_ptr + rows * stride_as_m + step * stride_as_k, mask=rows < m, other=0.0)
            b_scale = tl.load(b_scale_ptr + off_n // BLOCK_K * stride_bs_n + step)
            acc += tl.dot(a, b.T) * (a_scale * b_scale)[:, None]
        c_desc.store([off_m, off_n], acc.to(c_desc.dtype))


def candidates() -> list[Config]:
    """Returns the configurations that tuning tries."""
    if is_hopper():
        return gemm_block_scaled_hopper.candidates()
    return [
        Config({"BLOCK_M": block_m, "BLOCK_N": 128, "GROUP_M": 8, "FLATTEN": flatten}, warps, stages, ctas)
        for block_m, warps, ctas in (
            (64, 4, 1),
            (64, 4, 2),
            (64, 4, 3),
            (128, 8, 1),
            (128, 8, 2),
            (128, 4, 2),
        )
        for stages in (2, 3, 4, 5)
        for flatten in (False, True)
    ]


def default_config(m: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    block_m = 64 if m <= 64 else 128
    return Config({"BLOCK_M": block_m, "BLOCK_N": 128, "GROUP_M": 8, "FLATTEN": False}, block_m // 16, 3)


def block_scaled_matmul(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor, *,
    out_dtype: torch.dtype = torch.bfloat16, config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns the product of a and b, each dequantised by its blocks' scales, (m, n), in `out_dtype`.

    Raises: ValueError if dtypes, strides or the shapes of the scales do not fit.
    """
    check_operands(a, b)
    (m, k), n = a.shape, b.shape[0]
    expected = ((m, k // SCALE_BLOCK), (triton.cdiv(n, SCALE_BLOCK), k // SCALE_BLOCK))
    if k % SCALE_BLOCK or (a_scale.shape, b_scale.shape) != expected:
        raise ValueError(
            f"expected k of whole 128s and scales {expected}, got {a_scale.shape}, {b_scale.shape}"
        )
    if n * out_dtype.itemsize % TMA_ALIGNMENT_BYTES or b_scale.stride(1) != 1:
        raise ValueError(f"expected n a multiple of 8 and b_scale row-major, got n = {n}")
    out = torch.empty((m, n), dtype=out_dtype, device=a.device)
    chosen = config or tuned_config("gemm_block_scaled", "fp8", (m, n, k), a.device) or default_config(m)
    if "IS_HOPPER" in chosen.meta:
        return gemm_block_scaled_hopper.launch_block_scaled(a, b, a_scale, b_scale, out, chosen)
    block_m, block_n = chosen.meta["BLOCK_M"], chosen.meta["BLOCK_N"]
    programs = min(chosen.ctas_per_sm * num_sms(a.device), triton.cdiv(m, block_m) * triton.cdiv(n, block_n))
    _block_scaled_kernel[(programs,)](
        TensorDescriptor.from_tensor(a, [block_m, SCALE_BLOCK]),
        TensorDescriptor.from_tensor(b, [block_n, SCALE_BLOCK]),
        TensorDescriptor.from_tensor(out, [block_m, block_n]),
        a_scale, b_scale, m, n, k, a_scale.stride(0), a_scale.stride(1), b_scale.stride(0),
        NUM_PROGRAMS=programs, **chosen.launch_options(),
    )  # fmt: skip
    return out


def block_scaled_matmul_oracle(
    a: torch.Tensor, b: torch.Tensor, a_scale: torch.Tensor, b_scale: torch.Tensor
) -> torch.Tensor:
    """Returns what `block_scaled_matmul` should, in float64."""
    a_full = a.double() * a_scale.double().repeat_interleave(SCALE_BLOCK, 1)
    scale = b_scale.double().repeat_interleave(SCALE_BLOCK, 0)[: b.shape[0]].repeat_interleave(SCALE_BLOCK, 1)
    return a_full @ (b.double() * scale).T


def launch_work(m: int, n: int, k: int, config: Config) -> ops.Op:
    """Returns the FLOPs and bytes of `block_scaled_matmul` into 16 bits with this configuration."""
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(m, n, k, "fp8", out_dtype="bf16", tile=tile)
