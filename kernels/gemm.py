"""Matrix products of activations with weights: persistent tiles over TMA, with fused epilogues.

Shapes: a (m, k) row-major, b (n, k) row-major (a `Linear` weight), out (m, n). bf16, fp16; fp32 runs as tf32.
Epilogues, while the tile is still in registers: + bias (n,); row and column scales (see `gemm_quantized`);
SiLU(gate) * up, where b holds the gate rows and then the up rows, (2n, k).
Papers: Triton (MAPL 2019); grouped tile order as in CUTLASS threadblock swizzling; persistent grid of one CTA
per SM, so that the store of a tile overlaps the loads of the next. Small m and odd sizes go to
`gemm_split_k`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ..hwmodels import ops
from .tuning import Config, num_sms, tuned_config

DTYPE_NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8",
    torch.int8: "int8",
}
# The copy engine moves rows whose stride is a multiple of 16 bytes. Source: CUDA driver API,
# cuTensorMapEncodeTiled.
TMA_ALIGNMENT_BYTES = 16


@triton.jit
def tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M: tl.constexpr):
    """Row and column of a tile: GROUP_M rows of tiles at a time, so that a wave reads few panels from L2."""
    tiles_per_group = GROUP_M * num_n_tiles
    first_m = (tile // tiles_per_group) * GROUP_M
    rows_in_group = tl.minimum(num_m_tiles - first_m, GROUP_M)
    return first_m + (tile % tiles_per_group) % rows_in_group, (tile % tiles_per_group) // rows_in_group


@triton.jit
def _scaled(
    acc, row_scale_ptr, col_scale_ptr, off_m, off_n, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    rows = off_m + tl.arange(0, BLOCK_M)
    cols = off_n + tl.arange(0, BLOCK_N)
    row_scale = tl.load(row_scale_ptr + rows, mask=rows < m, other=0.0)
    col_scale = tl.load(col_scale_ptr + cols, mask=cols < n, other=0.0)
    return acc.to(tl.float32) * row_scale[:, None] * col_scale[None, :]


@triton.jit
def _gemm_kernel(
    a_desc, b_desc, c_desc, bias_ptr, row_scale_ptr, col_scale_ptr,
    # dimensions
    m, n, k,
    # epilogue
    HAS_BIAS: tl.constexpr, IS_SCALED: tl.constexpr, SILU_MUL: tl.constexpr, ACC_DTYPE: tl.constexpr,
    # meta-parameters
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr, SPLIT_STORE: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """a (m, k), b (n, k), c (m, n); every program walks the tiles program_id, + NUM_PROGRAMS, ...

    For SILU_MUL b is (2, n, k), and one tile holds BLOCK_N gate columns and the BLOCK_N up columns of the
    same places: one product of twice the width, since two products into two accumulators would run one after
    the other.
    """
    num_m_tiles = tl.cdiv(m, BLOCK_M)
    num_n_tiles = tl.cdiv(n, BLOCK_N)
    k_steps = tl.cdiv(k, BLOCK_K)
    for tile in tl.range(
        tl.program_id(0), num_m_tiles * num_n_tiles, NUM_PROGRAMS,
        flatten=FLATTEN,
    ):  # fmt: skip
        pid_m, pid_n = tile_origin(tile, num_m_tiles, num_n_tiles, GROUP_M)
        off_m = pid_m * BLOCK_M
        off_n = pid_n * BLOCK_N
        WIDTH: tl.constexpr = 2 * BLOCK_N if SILU_MUL else BLOCK_N
        acc = tl.zeros((BLOCK_M, WIDTH), dtype=ACC_DTYPE)
        for step in range(k_steps):
            a = a_desc.load([off_m, step * BLOCK_K])
            if SILU_MUL:
                b = b_desc.load([0, off_n, step * BLOCK_K]).reshape(WIDTH, BLOCK_K)
            else:
                b = b_desc.load([off_n, step * BLOCK_K])
            acc = tl.dot(a, b.T, acc, out_dtype=ACC_DTYPE)
        if IS_SCALED:
            acc = _scaled(acc, row_scale_ptr, col_scale_ptr, off_m, off_n, m, n, BLOCK_M, BLOCK_N)
        if HAS_BIAS:
            cols = off_n + tl.arange(0, BLOCK_N)
            acc += tl.load(bias_ptr + cols, mask=cols < n, other=0.0).to(tl.float32)[None, :]
        if SILU_MUL:
            gate, up = acc.reshape(BLOCK_M, 2, BLOCK_N).permute(0, 2, 1).split()
            acc = gate * tl.sigmoid(gate) * up
        if SPLIT_STORE:
            # Two half tiles: half the shared memory for staging leaves room for one more pipeline stage.
            left, right = acc.reshape(BLOCK_M, 2, BLOCK_N // 2).permute(0, 2, 1).split()
            c_desc.store([off_m, off_n], left.to(c_desc.dtype))
            c_desc.store([off_m, off_n + BLOCK_N // 2], right.to(c_desc.dtype))
        else:
            c_desc.store([off_m, off_n], acc.to(c_desc.dtype))


def make_config(
    block_m: int, block_n: int, block_k: int, warps: int, stages: int, *, split_store: bool,
    flatten: bool = True, group_m: int = 8, ctas_per_sm: int = 1,
) -> Config:  # fmt: skip
    meta = {
        "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "GROUP_M": group_m,
        "SPLIT_STORE": split_store, "FLATTEN": flatten,
    }  # fmt: skip
    return Config(meta, warps, stages, ctas_per_sm)


def candidates(dtype: torch.dtype, *, silu_mul: bool = False, few_rows: bool = False) -> list[Config]:
    """Returns the configurations that tuning tries; 128 bytes of k per step and operand, as one swizzle atom.

    With SiLU-mul a tile needs two accumulators, so its columns halve. For a few hundred rows tiles are
    smaller, and several CTAs fit one SM.
    """
    block_k = 128 // dtype.itemsize
    if few_rows:
        return _few_row_candidates(block_k)
    tiles = [(128, 256, 8, 1), (256, 128, 8, 1), (128, 128, 4, 1), (128, 128, 4, 2), (64, 256, 4, 1)]
    if silu_mul:
        tiles = [(128, 128, 8, 1), (64, 128, 4, 1)]
    return [
        make_config(
            bm, bn, block_k, warps, stages, split_store=split, flatten=flatten, group_m=group_m,
            ctas_per_sm=ctas,
        )
        for bm, bn, warps, ctas in tiles
        for stages in (3, 4)
        for split in (False, True)
        for flatten in (False, True)
        for group_m in (8, 16)
    ]  # fmt: skip


def _few_row_candidates(block_k: int) -> list[Config]:
    tiles = [
        (128, 256, 8, 1), (256, 128, 8, 1), (128, 128, 4, 1), (128, 128, 4, 2), (64, 256, 4, 1),
        (128, 64, 4, 2), (64, 128, 4, 2), (64, 64, 4, 3),
    ]  # fmt: skip
    return [
        make_config(bm, bn, depth, warps, stages, split_store=True, flatten=flatten, ctas_per_sm=ctas)
        for bm, bn, warps, ctas in tiles
        for depth in ((block_k, 2 * block_k) if bm * bn < 128 * 128 else (block_k,))
        for stages in (3, 4)
        for flatten in (False, True)
    ]


def default_config(m: int, dtype: torch.dtype, *, silu_mul: bool = False) -> Config:
    """Returns the configuration for a GPU that nobody tuned."""
    block_k = 128 // dtype.itemsize
    if silu_mul or m <= 1024:
        return make_config(128, 128, block_k, 8 if silu_mul else 4, 3, split_store=False)
    return make_config(128, 256, block_k, 8, 3, split_store=True)


def check_operands(a: torch.Tensor, b: torch.Tensor) -> None:
    """Raises ValueError unless a (m, k) and b (n, k) are row-major, of one dtype, with aligned rows."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected a (m, k) and b (n, k), got {tuple(a.shape)} and {tuple(b.shape)}")
    if a.dtype != b.dtype or a.dtype not in DTYPE_NAMES:
        raise ValueError(f"expected one dtype of {list(DTYPE_NAMES.values())}, got {a.dtype} and {b.dtype}")
    if a.stride(1) != 1 or b.stride(1) != 1:
        raise ValueError("a and b must be contiguous along k")
    if not all(is_tma_aligned(operand) for operand in (a, b)):
        raise ValueError(
            f"rows of a and b must be multiples of {TMA_ALIGNMENT_BYTES} bytes; use gemm_split_k"
        )


def is_tma_aligned(operand: torch.Tensor) -> bool:
    """Returns whether the copy engine can address the rows of `operand`."""
    return operand.stride(0) * operand.itemsize % TMA_ALIGNMENT_BYTES == 0 and operand.data_ptr() % 16 == 0


def launch_gemm(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, config: Config, *, bias: torch.Tensor | None = None,
    row_scale: torch.Tensor | None = None, col_scale: torch.Tensor | None = None, silu_mul: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Launches the kernel into `out` (m, n); scales are fp32, (m,) and (n,), both or neither."""
    m, n = out.shape
    meta = config.meta
    block_m, block_n, block_k = meta["BLOCK_M"], meta["BLOCK_N"], meta["BLOCK_K"]
    store_n = block_n // 2 if meta["SPLIT_STORE"] else block_n
    num_tiles = triton.cdiv(m, block_m) * triton.cdiv(n, block_n)
    programs = min(config.ctas_per_sm * num_sms(a.device), num_tiles)
    _gemm_kernel[(programs,)](
        TensorDescriptor.from_tensor(a, [block_m, block_k]),
        _weight_descriptor(b, block_n, block_k, silu_mul=silu_mul),
        TensorDescriptor.from_tensor(out, [block_m, store_n]),
        bias, row_scale, col_scale, m, n, a.shape[1],
        HAS_BIAS=bias is not None, IS_SCALED=row_scale is not None, SILU_MUL=silu_mul,
        ACC_DTYPE=tl.int32 if a.dtype == torch.int8 else tl.float32,
        NUM_PROGRAMS=programs, **config.launch_options(),
    )  # fmt: skip
    return out


def _weight_descriptor(b: torch.Tensor, block_n: int, block_k: int, *, silu_mul: bool) -> TensorDescriptor:
    if not silu_mul:
        return TensorDescriptor.from_tensor(b, [block_n, block_k])
    return TensorDescriptor.from_tensor(b.unflatten(0, (2, -1)), [2, block_n, block_k])


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, bias: torch.Tensor | None = None, config: Config | None = None
) -> torch.Tensor:
    """Returns a @ b.T (+ bias) of shape (m, n), in the dtype of `a`.

    Raises: ValueError if shapes, dtypes or strides do not fit, or n * itemsize is no multiple of 16 bytes.
    """
    check_operands(a, b)
    m, n = a.shape[0], b.shape[0]
    if bias is not None and bias.shape != (n,):
        raise ValueError(f"expected bias ({n},), got {tuple(bias.shape)}")
    out = _allocate(m, n, a)
    shape = (m, n, a.shape[1])
    chosen = (
        config or tuned_config("gemm", DTYPE_NAMES[a.dtype], shape, a.device) or default_config(m, a.dtype)
    )
    return launch_gemm(a, b, out, chosen, bias=bias)


def matmul_silu_mul(a: torch.Tensor, b: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Returns SiLU(a @ gate.T) * (a @ up.T), (m, n), for b = [gate; up] of shape (2n, k), in one launch.

    Raises: ValueError as `matmul`, or if b has an odd number of rows.
    """
    check_operands(a, b)
    if b.shape[0] % 2:
        raise ValueError(f"b must hold as many gate rows as up rows, got {b.shape[0]} rows")
    m, n = a.shape[0], b.shape[0] // 2
    out = _allocate(m, n, a)
    tuned = tuned_config("gemm_silu_mul", DTYPE_NAMES[a.dtype], (m, n, a.shape[1]), a.device)
    chosen = config or tuned or default_config(m, a.dtype, silu_mul=True)
    return launch_gemm(a, b, out, chosen, silu_mul=True)


def _allocate(m: int, n: int, a: torch.Tensor) -> torch.Tensor:
    if n * a.itemsize % TMA_ALIGNMENT_BYTES:
        raise ValueError(f"rows of the output must be multiples of {TMA_ALIGNMENT_BYTES} bytes, got n = {n}")
    return torch.empty((m, n), dtype=a.dtype, device=a.device)


def matmul_oracle(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns what `matmul` should, in float64."""
    product = a.double() @ b.double().T
    return product if bias is None else product + bias.double()


def matmul_silu_mul_oracle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Returns what `matmul_silu_mul` should, in float64."""
    gate, up = (a.double() @ b.double().T).chunk(2, dim=1)
    return torch.nn.functional.silu(gate) * up


def launch_work(m: int, n: int, k: int, dtype: torch.dtype, config: Config) -> ops.Op:
    """Returns the FLOPs and bytes of `matmul` with this configuration."""
    tile = ops.Tile(int(config.meta["BLOCK_M"]), int(config.meta["BLOCK_N"]))
    return ops.gemm(m, n, k, DTYPE_NAMES[dtype], tile=tile)
