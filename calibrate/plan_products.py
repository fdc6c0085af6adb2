"""Grids of products: dense, quantised, grouped over experts, under sustained load, and a vision tower's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..hwmodels.op_point import OpPoint
from .plan_shapes import Matrix, Patches, expert_shapes, gemm_shapes, patch_shapes, vision_matrices
from .stream import MAX_POINT_BYTES, Stream

# Tokens of a product: powers of two, what lies between them, and one row beyond the edges of tiles.
GEMM_ROWS = (
    1, 2, 4, 8, 16, 17, 24, 32, 33, 48, 64, 65, 96, 128, 129, 160, 192, 256, 257, 320, 384, 512, 513, 640,
    768, 1024, 1025, 1280, 1536, 2048, 2049, 2560, 3072, 4096, 5120, 6144, 8192, 12288, 16384,
)  # fmt: skip
# Weights of a few bits pay where weights bind: in decoding.
WEIGHT_ONLY_ROWS = (1, 2, 4, 8, 16, 17, 24, 32, 48, 64, 96, 128, 192, 256)
SCALE_BLOCK = 128  # of block-scaled and weight-only products alike
# Products that draw all the power there is, from one that HBM still binds to a large cube.
SUSTAINED_SIZES = (
    (8192, 8192, 8192), (512, 28672, 4096), (2048, 28672, 4096), (8192, 28672, 4096), (4096, 4096, 14336),
    (2048, 51200, 5120), (256, 28672, 4096), (1024, 6144, 4096), (4096, 4096, 4096),
)  # fmt: skip
MOE_TOKENS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 3072, 4096, 8192, 16384)
# Exponents of the popularity of experts, from nearly even to a few favourites: of 128 experts, each token
# taking 8, the most popular one gets 2.9, 6.9, 13 and 16 times the mean.
SKEWS = (0.3, 0.6, 1.0, 1.5)
PATCHES = (196, 256, 576, 1024, 1536, 2304, 4096, 6400, 9216, 16384)
# The copy engine wants rows of whole 16 bytes. Source: CUDA driver API, cuTensorMapEncodeTiled.
_ALIGNED = 16

Product = Callable[[tuple[int, int], int], OpPoint | None]


def _product(op: str, implementation: str, dtype: str) -> Product:
    def make(shape: tuple[int, int], m: int) -> OpPoint | None:
        n, k = shape
        # cuBLAS takes int8 products of more than 16 rows. Source: PyTorch, torch._int_mm's checks.
        if dtype == "int8" and implementation == "cublas" and m <= 16:
            return None
        # Block-scaled ones take rows in fours; else CUDA 13.0 answers CUBLAS_STATUS_NOT_SUPPORTED.
        if op == "gemm_block_scaled" and implementation == "cublas" and m % 4:
            return None
        return OpPoint(op, implementation, dtype, m=m, n=n, k=k)

    return make


def _aligned(shapes: Sequence[Matrix], multiple: int = _ALIGNED) -> list[Matrix]:
    return [shape for shape in shapes if shape.n % multiple == 0 and shape.k % multiple == 0]


def _gemm(implementation: str, dtype: str, weight: float, count: int) -> Stream:
    axes = (_aligned(gemm_shapes()), GEMM_ROWS)
    make = _product("gemm", implementation, dtype)
    return Stream("gemm", implementation, dtype, axes, make, weight, count)


def _block_scaled(implementation: str, weight: float, count: int) -> Stream:
    axes = (_aligned(gemm_shapes(), SCALE_BLOCK), GEMM_ROWS)
    make = _product("gemm_block_scaled", implementation, "fp8")
    return Stream("gemm_block_scaled", implementation, "fp8", axes, make, weight, count)


def _weight_only(dtype: str, weight: float, count: int) -> Stream:
    axes = (_aligned(gemm_shapes(), SCALE_BLOCK), WEIGHT_ONLY_ROWS)
    make = _product("gemm_weight_only", "triton", dtype)
    return Stream("gemm_weight_only", "triton", dtype, axes, make, weight, count)


def _vision_gemm(implementation: str, weight: float, count: int) -> Stream:
    shapes = vision_matrices() if implementation == "cublas" else _aligned(vision_matrices())
    make = _product("gemm", implementation, "bf16")
    return Stream("gemm", implementation, "bf16", (shapes, PATCHES), make, weight, count)


def _patch_embed(implementation: str, weight: float, count: int) -> Stream:
    def make(shape: Patches, m: int) -> OpPoint:
        return OpPoint(
            "patch_embed", implementation, "bf16", m=m, n=shape.n, k=shape.k, kernel_size=shape.kernel_size
        )

    axes = (patch_shapes(), PATCHES)
    return Stream("patch_embed", implementation, "bf16", axes, make, weight, count)


def _sustained(implementation: str, dtype: str, weight: float, count: int) -> Stream:
    def make(sizes: tuple[int, int, int]) -> OpPoint:
        m, n, k = sizes
        return OpPoint("gemm", implementation, dtype, m=m, n=n, k=k, sustained=True)

    return Stream("gemm", implementation, dtype, (SUSTAINED_SIZES,), make, weight, count)


def _moe(skews: Sequence[float], weight: float, count: int) -> Stream:
    def make(shape: tuple[int, int, int, int], m: int, skew: float) -> OpPoint | None:
        n, k, num_experts, top_k = shape
        if 2 * num_experts * n * k > MAX_POINT_BYTES or (skew and top_k == num_experts):
            return None
        return OpPoint(
            "grouped_gemm", "triton", "bf16",
            m=m, n=n, k=k, num_experts=num_experts, top_k=top_k, skew=skew,
        )  # fmt: skip

    axes = (expert_shapes(), MOE_TOKENS, skews)
    return Stream("grouped_gemm", "triton", "bf16", axes, make, weight, count)


def product_streams() -> tuple[Stream, ...]:
    """Returns the grids; weights follow from how many coefficients a fit has and how much of a step it is."""
    return (
        _gemm("cublas", "bf16", 3.0, 450),
        _gemm("cublas", "fp8", 2.5, 380),
        _gemm("cublas", "int8", 0.7, 110),
        _gemm("cublas", "fp16", 0.15, 24),
        _gemm("triton", "bf16", 2.0, 320),
        _gemm("triton", "fp8", 1.4, 220),
        _gemm("triton", "int8", 0.7, 110),
        _gemm("triton", "fp16", 0.15, 24),
        _sustained("cublas", "bf16", 0.08, 9),
        _sustained("cublas", "fp8", 0.05, 5),
        _sustained("triton", "bf16", 0.04, 3),
        _sustained("triton", "fp8", 0.03, 2),
        _block_scaled("cublas", 0.6, 90),
        _block_scaled("triton", 0.6, 90),
        _weight_only("int8", 0.4, 60),
        _weight_only("int4", 0.5, 80),
        _vision_gemm("cublas", 0.4, 60),
        _vision_gemm("triton", 0.2, 30),
        _patch_embed("cudnn", 0.2, 32),
        _patch_embed("triton", 0.2, 32),
        _moe((0.0,), 1.0, 150),
        _moe(SKEWS, 0.5, 80),
    )
