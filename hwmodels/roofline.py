"""Hierarchical roofline: the time of an op is that of the resource it keeps busy longest.

Matrix units, vector units, HBM, L2 and SRAM each have a rate; an efficiency says how much of the
datasheet's rate a good kernel reaches. Tiles run in waves of one per SM. What the op is made of belongs
to `ops`, how ops make up a step to `layers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import NamedTuple

from ..errors import ProfileError, SimllmError
from .device import DeviceSpec
from .ops import Launches, Op

# Time that a kernel takes to reach full speed and to drain: a first load from HBM before any work, a last
# tile's store after it.
# Source: estimated, two trips of about 0.5 us to HBM and back; traces show no kernel shorter than 1-2 us.
KERNEL_RAMP_S = 1e-6


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the datasheet's rates that kernels reach, each in (0, 1].

    matrix: GEMMs on full waves. attention_matrix: attention of prefill chunks. hbm: weights and
    activations. kv_hbm: paged reads of the KV cache. link: NVLink or PCIe in a collective.
    The defaults are estimates from public measurements; `DEFAULT_EFFICIENCY_SOURCES` names them.
    """

    matrix: float = 0.75
    attention_matrix: float = 0.60
    vector: float = 0.70
    hbm: float = 0.85
    kv_hbm: float = 0.80
    l2: float = 0.65
    sram: float = 0.90
    link: float = 0.75

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= 1:
                raise ProfileError(f"efficiency {field.name!r} must be in (0, 1], got {value!r}")


DEFAULT_EFFICIENCY_SOURCES: Mapping[str, str] = {
    "matrix": "estimated: large bf16 GEMMs at the power limit reach 650-780 of H100 SXM's 989 TFLOP/s",
    "attention_matrix": "estimated: FlashAttention-3 reaches up to 75 % of H100's peak (arXiv 2407.08608), "
    "less under a causal mask and over paged KV",
    "vector": "estimated: fp32 loops with index arithmetic between the multiply-adds",
    "hbm": "estimated: long device copies reach 90-93 % of the datasheet's rate, streamed weights less",
    "kv_hbm": "estimated: paged reads in pieces of a block, shorter streams than weights",
    "l2": "estimated: 5.7 TB/s measured on H100 PCIe (Chips and Cheese, 2023) of 9.0 TB/s by width x clock",
    "sram": "estimated: bank conflicts and barriers",
    "link": "estimated: NCCL all-reduces of large buffers reach 75-85 % of NVLink's rate",
}


class Timing(NamedTuple):
    """How long launches keep the device busy [s], what binds most of it, and how many kernels they are.

    gap_s: the gaps and ramps that come on top inside a CUDA graph; 0 where a measurement holds them already.
    matrix_s: the part of busy_s that the matrix units bind. is_extrapolated: it follows from a measurement of
    other sizes.
    """

    busy_s: float
    bound: str
    num_kernels: int
    gap_s: float
    matrix_s: float
    is_extrapolated: bool = False


class Roofline:
    """The rates of one device under one set of efficiencies. Pure: no state changes after construction."""

    def __init__(self, device: DeviceSpec, efficiency: Efficiency) -> None:
        self.device = device
        self.efficiency = efficiency
        self.hbm_bytes_per_s = device.hbm_bytes_per_s * efficiency.hbm
        self.kv_bytes_per_s = device.hbm_bytes_per_s * efficiency.kv_hbm
        self.l2_bytes_per_s = device.l2_bytes_per_s * efficiency.l2
        self.sram_bytes_per_s = device.sram_bytes_per_s * efficiency.sram
        self.vector_flops_per_s = device.vector_flops_per_s * efficiency.vector
        self.launch_s = device.launch_s + KERNEL_RAMP_S
        self._num_sms = device.num_sms

    def matrix_flops_per_s(self, dtype: str) -> float:
        """Returns the matrix units' peak rate for `dtype`. Raises: SimllmError if the device has none."""
        rates = self.device.matrix_flops_per_s
        if dtype not in rates:
            raise SimllmError(
                f"device {self.device.name} has no matrix rate for {dtype!r}, only {sorted(rates)}"
            )
        return rates[dtype]

    def time(self, op: Op) -> Timing:
        """Returns the time of one op alone on the device.

        Waves: ``ceil(num_tiles / num_sms)`` rounds of one tile per SM, so the last, partly empty round costs
        as much as a full one. HBM is shared by all SMs and knows no waves.
        SIMPLIFIED: compute and traffic of one op overlap wholly but for the ramp in `launch_s`; effect: up to
        15 % too fast where two resources are equally busy.
        """
        is_matrix = op.unit == "matrix"
        work = max(op.issued_flops, op.flops)
        if op.num_tiles:
            work *= ceil(op.num_tiles / self._num_sms) * self._num_sms / op.num_tiles
        kv_read = op.kind == "decode_attention"
        busy_s, bound = op.hbm_bytes / (self.kv_bytes_per_s if kv_read else self.hbm_bytes_per_s), "hbm"
        others = (
            (self._matrix_s(op, work) if is_matrix else 0.0, "matrix"),
            ((op.vector_flops if is_matrix else work) / self.vector_flops_per_s, "vector"),
            (op.l2_bytes / self.l2_bytes_per_s, "l2"),
            (op.sram_bytes / self.sram_bytes_per_s, "sram"),
        )
        for seconds, name in others:
            if seconds > busy_s:
                busy_s, bound = seconds, name
        if op.latency_s > busy_s:
            busy_s, bound = op.latency_s, "latency"
        matrix_s = busy_s if bound == "matrix" else 0.0
        return Timing(busy_s, bound, op.num_kernels, op.num_kernels * self.launch_s, matrix_s)

    def fastest(self, alternatives: Iterable[Op]) -> Timing:
        """Returns the time of the quickest of several ways to run the same op, as a library chooses."""
        return min(map(self.time, alternatives))

    def total(self, launches: Iterable[Launches]) -> Timing:
        """Returns the time of a sequence of launches, bound by what binds most of it."""
        return add_timings((launch.repeats, self.fastest(launch.alternatives)) for launch in launches)

    def _matrix_s(self, op: Op, work: float) -> float:
        is_attention = op.kind.endswith("attention")
        share = self.efficiency.attention_matrix if is_attention else self.efficiency.matrix
        return work / (self.matrix_flops_per_s(op.dtype) * share)


def add_timings(timings: Iterable[tuple[int, Timing]]) -> Timing:
    """Returns the sum of (repeats, timing) pairs, bound by what binds most of it."""
    busy_s, num_kernels, gap_s, matrix_s, is_extrapolated = 0.0, 0, 0.0, 0.0, False
    by_bound: dict[str, float] = {}
    for repeats, timing in timings:
        busy_s += repeats * timing.busy_s
        num_kernels += repeats * timing.num_kernels
        gap_s += repeats * timing.gap_s
        matrix_s += repeats * timing.matrix_s
        is_extrapolated = is_extrapolated or timing.is_extrapolated
        by_bound[timing.bound] = by_bound.get(timing.bound, 0.0) + repeats * timing.busy_s
    bound = max(by_bound, key=by_bound.__getitem__) if by_bound else "none"
    return Timing(busy_s, bound, num_kernels, gap_s, matrix_s, is_extrapolated)
