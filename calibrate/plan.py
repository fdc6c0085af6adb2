"""What to measure, and in which order: grids of sizes as pure data, most informative points first.

Every stream (one op, implementation and dtype) walks its grid in a low-discrepancy order, so that any prefix
covers it evenly; streams are interleaved by weight, so that a shorter budget thins all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Any

from scipy.stats import qmc

from ..errors import CalibrationError, nearest_choice
from ..hwmodels.op_point import OpPoint, work
from ..units import GIB
from .plan_shapes import attention_heads, expert_shapes, gemm_shapes

# Tokens of a product: powers of two, what lies between them, and one row beyond the edges of tiles.
GEMM_ROWS = (
    1, 2, 4, 8, 16, 17, 24, 32, 33, 48, 64, 65, 96, 128, 129, 160, 192, 256, 257, 320, 384, 512, 513, 640,
    768, 1024, 1025, 1280, 1536, 2048, 2049, 2560, 3072, 4096, 5120, 6144, 8192, 12288, 16384,
)  # fmt: skip
QUERY_LENS = (
    16,
    64,
    100,
    128,
    200,
    256,
    384,
    512,
    768,
    1000,
    1024,
    1536,
    2048,
    3072,
    4096,
    6144,
    8192,
    16384,
)
CONTEXT_LENS = (0, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
CHUNKS_PER_BATCH = (1, 1, 1, 2, 4, 8)
DECODE_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
DECODE_CONTEXTS = (64, 128, 200, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384, 32768, 65536)
# How much longer the longest request of a batch is than the mean; 1 where all are equal.
RAGGEDNESS = (1, 1, 2, 4)
VERIFIED_LENS = (1, 1, 1, 2, 4, 8)  # query tokens of a decode; more than 1 verifies drafts
BLOCK_SIZE = 64
MOE_TOKENS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 3072, 4096, 8192, 16384)
VECTOR_ROWS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 16384)
VECTOR_WIDTHS = (1024, 2048, 3584, 4096, 5120, 7168, 8192, 14336, 18432)
MLA_HEADS = (16, 32, 64, 128)
# DeepSeek-V3's latent. Source: arXiv 2412.19437 section 4.2 (512 compressed and 64 rotary dimensions).
MLA_LATENT, MLA_ROPE = 512, 64

# A point beyond these tells nothing that a smaller one does not, and costs more time than several.
MAX_POINT_FLOPS = 8e12
MAX_POINT_BYTES = 6 * GIB
_SKIPPED = 1  # the first point of the sequence is the corner of the grid


@dataclass(frozen=True, slots=True)
class Stream:
    """One grid: `make` turns one value of each axis into a point, or None where they do not fit.

    weight: share of the plan; count: points at most.
    """

    op: str
    implementation: str
    dtype: str
    axes: Sequence[Sequence[Any]]
    make: Callable[..., OpPoint | None]
    weight: float
    count: int

    def points(self) -> Iterator[OpPoint]:
        """Yields the points in order, each once, and only those of a sensible size."""
        return islice(self._distinct(), self.count)

    def _distinct(self) -> Iterator[OpPoint]:
        seen: set[OpPoint] = set()
        size = prod(len(axis) for axis in self.axes)
        draws = qmc.Halton(len(self.axes), scramble=False).random(min(4 * size, 16 * self.count) + _SKIPPED)
        for draw in draws[_SKIPPED:]:
            values = (axis[int(place * len(axis))] for axis, place in zip(self.axes, draw, strict=True))
            point = self.make(*values)
            if point is None or point in seen or not _is_sensible(point):
                continue
            seen.add(point)
            yield point


def _is_sensible(point: OpPoint) -> bool:
    needed = work(point)
    return needed.flops <= MAX_POINT_FLOPS and needed.hbm_bytes <= MAX_POINT_BYTES


def _gemm_stream(implementation: str, dtype: str, weight: float, count: int) -> Stream:
    def make(shape: tuple[int, int], m: int) -> OpPoint | None:
        n, k = shape
        # cuBLAS takes int8 products of more than 16 rows. Source: PyTorch, torch._int_mm's checks.
        if dtype == "int8" and implementation == "cublas" and m <= 16:
            return None
        return OpPoint("gemm", implementation, dtype, m=m, n=n, k=k)

    shapes = [shape for shape in gemm_shapes() if shape.n % 16 == 0 and shape.k % 16 == 0]
    return Stream("gemm", implementation, dtype, (shapes, GEMM_ROWS), make, weight, count)


def _prefill_stream(implementation: str, weight: float, count: int) -> Stream:
    def make(heads: tuple[int, int, int], query_len: int, context_len: int, batch: int) -> OpPoint | None:
        if implementation == "sdpa-cudnn" and context_len:
            return None  # torch aligns cuDNN's causal mask to the first key, which is wrong after a context
        return OpPoint(
            "attention_prefill", implementation, "bf16",
            batch=batch, query_len=query_len, context_len=context_len,
            num_q_heads=heads[0], num_kv_heads=heads[1], head_dim=heads[2],
            block_size=BLOCK_SIZE if implementation == "triton" else 0,
        )  # fmt: skip

    axes = (attention_heads(), QUERY_LENS, CONTEXT_LENS, CHUNKS_PER_BATCH)
    return Stream("attention_prefill", implementation, "bf16", axes, make, weight, count)


def _decode_stream(implementation: str, dtype: str, weight: float, count: int) -> Stream:
    def make(
        heads: tuple[int, int, int], batch: int, context_len: int, ragged: int, query_len: int
    ) -> OpPoint | None:
        if implementation != "triton" and (ragged > 1 or query_len > 1):
            return None
        if query_len * heads[0] // heads[1] > 128 or (batch == 1 and ragged > 1):
            return None
        return OpPoint(
            "attention_decode", implementation, dtype,
            batch=batch, query_len=query_len, context_len=context_len,
            max_context_len=ragged * context_len if ragged > 1 else 0,
            num_q_heads=heads[0], num_kv_heads=heads[1], head_dim=heads[2],
            block_size=BLOCK_SIZE if implementation == "triton" else 0,
        )  # fmt: skip

    axes = (attention_heads(), DECODE_BATCHES, DECODE_CONTEXTS, RAGGEDNESS, VERIFIED_LENS)
    return Stream("attention_decode", implementation, dtype, axes, make, weight, count)


def _mla_stream(weight: float, count: int) -> Stream:
    def make(num_heads: int, batch: int, context_len: int) -> OpPoint:
        return OpPoint(
            "mla_decode", "triton", "bf16", batch=batch, query_len=1, context_len=context_len,
            num_q_heads=num_heads, num_kv_heads=1, head_dim=MLA_LATENT, k=MLA_ROPE, block_size=BLOCK_SIZE,
        )  # fmt: skip

    axes = (MLA_HEADS, DECODE_BATCHES, DECODE_CONTEXTS)
    return Stream("mla_decode", "triton", "bf16", axes, make, weight, count)


def _moe_stream(weight: float, count: int) -> Stream:
    def make(shape: tuple[int, int, int, int], m: int) -> OpPoint | None:
        n, k, num_experts, top_k = shape
        if 2 * num_experts * n * k > MAX_POINT_BYTES:
            return None
        return OpPoint("grouped_gemm", "triton", "bf16", m=m, n=n, k=k, num_experts=num_experts, top_k=top_k)

    return Stream("grouped_gemm", "triton", "bf16", (expert_shapes(), MOE_TOKENS), make, weight, count)


def _vector_stream(op: str, implementation: str, weight: float, count: int) -> Stream:
    def make(m: int, n: int) -> OpPoint:
        return OpPoint(op, implementation, "bf16", m=m, n=n)

    return Stream(op, implementation, "bf16", (VECTOR_ROWS, VECTOR_WIDTHS), make, weight, count)


def streams() -> tuple[Stream, ...]:
    """Returns all grids; weights follow from how many coefficients a fit has and how much of a step it is."""
    return (
        _gemm_stream("cublas", "bf16", 3.0, 450),
        _gemm_stream("cublas", "fp8", 2.5, 380),
        _gemm_stream("cublas", "int8", 0.7, 110),
        _gemm_stream("triton", "bf16", 2.0, 320),
        _gemm_stream("triton", "fp8", 1.4, 220),
        _gemm_stream("triton", "int8", 0.7, 110),
        _prefill_stream("sdpa-cudnn", 0.8, 130),
        _prefill_stream("sdpa-flash", 1.0, 160),
        _prefill_stream("triton", 1.3, 200),
        _decode_stream("triton", "bf16", 1.6, 260),
        _decode_stream("triton", "fp8", 0.7, 120),
        _decode_stream("sdpa-flash", "bf16", 0.6, 100),
        _mla_stream(0.6, 90),
        _moe_stream(1.0, 150),
        *(
            _vector_stream(op, implementation, 0.35, 50)
            for op in ("rms_norm", "layer_norm", "silu_mul", "softmax")
            for implementation in ("triton", "torch")
        ),
    )


def make_plan(ops: Sequence[str] = (), implementations: Sequence[str] = ()) -> tuple[OpPoint, ...]:
    """Returns all points of these ops and implementations (all if empty), most informative first.

    Raises: CalibrationError, one line, for a name that no stream has.
    """
    chosen = streams()
    for wanted, attribute in ((ops, "op"), (implementations, "implementation")):
        known = {getattr(stream, attribute) for stream in chosen}
        for name in wanted:
            if name not in known:
                raise CalibrationError(
                    f"{attribute} {name!r} is not measured; did you mean {nearest_choice(name, known)!r}?"
                )
        chosen = tuple(stream for stream in chosen if not wanted or getattr(stream, attribute) in wanted)
    ranked = (
        ((place + 1) / stream.weight, order, point)
        for order, stream in enumerate(chosen)
        for place, point in enumerate(stream.points())
    )
    return tuple(point for _, _, point in sorted(ranked, key=lambda entry: entry[:2]))
