"""Products of 16-bit activations with int8 or int4 weights, dequantised on their way to the matrix unit.

Shapes: a (m, k) bf16 or fp16; codes int8 (n, k), or uint8 (n, k / 2) holding two 4-bit codes a byte; scales
(n, k / 128) fp32; zeros (n, k / 128) fp32 for 4 bits; out (m, n). weight = code * scale, or (code - zero) *
scale. In a group of 128 columns, byte j holds column j in its low half and column 64 + j in its high half, so
that a byte's two codes go to two products and no element moves between threads.
Papers: AWQ, arXiv 2306.00978, and GPTQ, arXiv 2210.17323 (group size 128). Meant for decoding, where weights
bind.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES
from .gemm_split_k import sum_splits
from .tuning import Config, tuned_config

GROUP_SIZE = 128
HALF_GROUP = GROUP_SIZE // 2
# A number whose last mantissa bit is worth 1, and its bits: a 4-bit code or-ed into it is that number plus
# the code. Source: arXiv 2211.10017, section 3.3, for fp16; bf16 is the same with 7 mantissa bits.
OFFSETS = {torch.float16: (1024.0, 0x6400), torch.bfloat16: (128.0, 0x4300)}


@triton.jit
def _weight_only_kernel(
    a_ptr, codes_ptr, scales_ptr, zeros_ptr, partial_ptr,
    # dimensions and strides
    m, n, k, stride_am, groups_per_split,
    # meta-parameters
    IS_INT4: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, OFFSET_BITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of m, tiles of n, splits); partial (splits, m, n). One step is one group of columns."""
    HALF: tl.constexpr = GROUP // 2
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    halves = tl.arange(0, HALF)
    num_groups = k // GROUP
    channels = tl.minimum(columns, n - 1).to(tl.int64)
    a_rows = a_ptr + tl.minimum(rows, m - 1).to(tl.int64)[:, None] * stride_am
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    last_group = tl.minimum((split + 1) * groups_per_split, num_groups)
    for group in tl.range(split * groups_per_split, last_group):
        low = tl.load(a_rows + (group * GROUP + halves)[None, :])
        high = tl.load(a_rows + (group * GROUP + HALF + halves)[None, :])
        scale = tl.load(scales_ptr + channels * num_groups + group)
        if IS_INT4:
            packed = tl.load(codes_ptr + channels[:, None] * (k // 2) + (group * HALF + halves)[None, :])
            zero = tl.load(zeros_ptr + channels * num_groups + group)
            w_low = ((packed & 15).to(tl.int16) | OFFSET_BITS).to(a_ptr.dtype.element_ty, bitcast=True)
            w_high = ((packed >> 4).to(tl.int16) | OFFSET_BITS).to(a_ptr.dtype.element_ty, bitcast=True)
        else:
            codes = codes_ptr + channels[:, None] * k + (group * GROUP + halves)[None, :]
            w_low = tl.load(codes).to(a_ptr.dtype.element_ty)
            w_high = tl.load(codes + HALF).to(a_ptr.dtype.element_ty)
        # Codes are exact in 8 bits of mantissa; zero and scale of the group meet the fp32 sum, not every
        # weight: sum a (code - zero) = sum a (OFFSET + code) - (OFFSET + zero) sum a.
        product = tl.dot(low, w_low.T)
        product = tl.dot(high, w_high.T, product)
        if IS_INT4:
            row_sum = tl.sum(low.to(tl.float32), 1) + tl.sum(high.to(tl.float32), 1)
            product -= row_sum[:, None] * (zero + OFFSET)[None, :]
        acc += product * scale[None, :]
    targets = partial_ptr + (split.to(tl.int64) * m + rows[:, None]) * n + columns[None, :]
    tl.store(targets, acc.to(partial_ptr.dtype.element_ty), mask=(rows < m)[:, None] & (columns < n)[None, :])


def candidates(m: int) -> list[Config]:
    """Returns the configurations that tuning tries."""
    block_m = max(16, min(64, triton.next_power_of_2(m)))
    return [
        Config({"BLOCK_M": block_m, "BLOCK_N": block_n, "SPLITS": splits}, warps, stages)
        for block_n in (32, 64, 128)
        for splits in (1, 2, 4, 8)
        for warps in (2, 4, 8)
        for stages in (3, 4, 5)
    ]


def default_config(m: int) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    return Config({"BLOCK_M": 16 if m <= 16 else 64, "BLOCK_N": 64, "SPLITS": 4}, 4, 3)


def weight_only_matmul(
    a: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None = None, *,
    config: Config | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns a @ weight.T of shape (m, n), in the dtype of `a`.

    Raises: ValueError if k is no whole number of groups, or shapes and dtypes do not fit.
    """
    is_int4 = codes.dtype == torch.uint8
    (m, k), n = a.shape, codes.shape[0]
    _check(a, codes, scales, zeros, is_int4=is_int4)
    out = torch.empty((m, n), dtype=a.dtype, device=a.device)
    variant = "int4" if is_int4 else "int8"
    chosen = config or tuned_config("gemm_weight_only", variant, (m, n, k), a.device) or default_config(m)
    options = chosen.launch_options()
    groups_per_split = triton.cdiv(k // GROUP_SIZE, options.pop("SPLITS"))
    splits = triton.cdiv(k // GROUP_SIZE, groups_per_split)
    partial = out if splits == 1 else torch.empty((splits, m, n), dtype=torch.float32, device=a.device)
    grid = (triton.cdiv(m, options["BLOCK_M"]), triton.cdiv(n, options["BLOCK_N"]), splits)
    offset, offset_bits = OFFSETS[a.dtype]
    _weight_only_kernel[grid](
        a, codes, scales, zeros, partial, m, n, k, a.stride(0), groups_per_split,
        IS_INT4=is_int4, GROUP=GROUP_SIZE, OFFSET=offset, OFFSET_BITS=offset_bits, **options,
    )  # fmt: skip
    if splits > 1:
        sum_splits(partial, out, splits, None)
    return out


def _check(
    a: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, *, is_int4: bool
) -> None:
    k, n = a.shape[1], codes.shape[0]
    if (
        codes.dtype not in (torch.uint8, torch.int8)
        or codes.shape[1] * (2 if is_int4 else 1) != k
        or k % GROUP_SIZE
    ):
        raise ValueError(
            f"expected k = {k} of whole {GROUP_SIZE}s in int8 or packed uint8, got {tuple(codes.shape)}"
        )
    if a.dtype not in OFFSETS:
        raise ValueError(f"expected activations in bf16 or fp16, got {a.dtype}")
    if scales.shape != (n, k // GROUP_SIZE) or (zeros is not None) != is_int4:
        raise ValueError(
            f"expected scales ({n}, {k // GROUP_SIZE}), and zeros for 4 bits only, got {scales.shape}"
        )
    if a.stride(1) != 1 or not (codes.is_contiguous() and scales.is_contiguous()):
        raise ValueError("a must be contiguous along k, codes and scales contiguous")


def quantize_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (codes, scales) of a weight (n, k): symmetric, per group of 128 columns."""
    groups = weight.float().unflatten(1, (-1, GROUP_SIZE))
    scales = groups.abs().amax(-1).clamp(min=1e-12) / 127
    return (groups / scales[..., None]).round().to(torch.int8).flatten(1), scales


def quantize_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (packed codes, scales, zeros) of a weight (n, k): asymmetric, per group of 128 columns."""
    groups = weight.float().unflatten(1, (-1, GROUP_SIZE))
    low, high = groups.amin(-1), groups.amax(-1)
    scales = (high - low).clamp(min=1e-12) / 15
    zeros = (-low / scales).round()
    codes = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 15).to(torch.uint8)
    packed = codes[..., :HALF_GROUP] | codes[..., HALF_GROUP:] << 4
    return packed.flatten(1), scales, zeros


def dequantize(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the weight (n, k) in float64 that codes, scales and zeros stand for."""
    if zeros is None:
        return (codes.double().unflatten(1, (-1, GROUP_SIZE)) * scales.double()[..., None]).flatten(1)
    packed = codes.unflatten(1, (-1, HALF_GROUP))
    groups = torch.cat([packed & 15, packed >> 4], dim=-1).double()
    return ((groups - zeros.double()[..., None]) * scales.double()[..., None]).flatten(1)


def weight_only_oracle(
    a: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns what `weight_only_matmul` should, in float64."""
    return a.double() @ dequantize(codes, scales, zeros).T


def launch_work(m: int, n: int, k: int, dtype: torch.dtype, weight_dtype: str, config: Config) -> ops.Op:
    """Returns the FLOPs and bytes of `weight_only_matmul`; weight_dtype is `int8` or `int4`."""
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    splits = int(config.meta["SPLITS"])
    return ops.gemm(m, n, k, DTYPE_NAMES[dtype], weight_dtype=weight_dtype, tile=tile, split_k=splits)
