"""What one kernel launch asks of the hardware, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Unit = Literal["matrix", "vector"]


class Sizes(NamedTuple):
    """Rows (tokens), columns and inner size of an op, as a calibrated profile names them, and experts.

    picks: of the `top_k` experts of a token those that lie on this rank, on average, 0 if all do. skew: how
    unevenly experts are chosen.
    """

    m: int
    n: int
    k: int = 0
    num_experts: int = 0
    top_k: int = 0
    picks: float = 0.0
    skew: float = 0.0


@dataclass(frozen=True, slots=True)
class Op:
    """One launch (or `num_kernels` launches that belong together): its work and its traffic.

    flops: useful FLOPs on `unit`, what torch's FLOP counter would say; a multiply-add counts two.
    issued_flops: what the unit executes once tiles are padded out; 0 if it is `flops`.
    num_tiles: equal tiles that share the issued FLOPs, one per SM at a time; None if the work spreads evenly.
    vector_flops: work of the vector units beside the matrix units (softmax), in parallel to them.
    hbm_bytes, l2_bytes, sram_bytes: traffic at each level; 0 where that level cannot be what binds.
    sizes: what a measurement of the same op is found by; None where it has no such sizes (mixed dtypes).
    latency_s: least time of the launch, of steps that depend on each other.
    weight_dtype: of weights that are narrower than what they are multiplied with, None if they are not.
    """

    kind: str
    flops: float
    hbm_bytes: float
    dtype: str
    unit: Unit = "matrix"
    issued_flops: float = 0.0
    num_tiles: float | None = None
    vector_flops: float = 0.0
    l2_bytes: float = 0.0
    sram_bytes: float = 0.0
    num_kernels: int = 1
    latency_s: float = 0.0
    sizes: Sizes | None = None
    weight_dtype: str | None = None


class Launches(NamedTuple):
    """`repeats` equal launches of one op, given by the alternatives (tiles, splits) that a library has."""

    repeats: int
    alternatives: tuple[Op, ...]
