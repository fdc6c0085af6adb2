"""The links of a calibrated profile: how long a collective or copy takes, by regime of its size.

A fit is a time for the first byte and a bandwidth per range of sizes, continuous at the edges. What was not
measured (other GPU counts, larger messages) follows from the bytes that each GPU must send, and says so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .fitted import FittedCoefficient, Part

LinkMode = Literal["graph", "eager", "after_gemm"]
"""`graph`: one of many in a row in a CUDA graph. `eager`: launched one by one from Python.
`after_gemm`: what it adds to a matrix product before it, inside a graph."""

# What one GPU more adds to the time of the first byte, where only one GPU count was measured.
# Source: NCCL 2.27, src/graph/tuning.cc: hwLat of NVLINK, ring, LL protocol: 0.6 us a step, two steps a peer
# in an all-reduce.
PEER_S = 1.2e-6


class LinkRegime(Part):
    """The range of sizes from `from_bytes` to the next regime. bytes_per_s: of what is added within it."""

    from_bytes: Annotated[float, Field(ge=0)]
    bytes_per_s: FittedCoefficient


class LinkHeldOut(Part):
    """Relative errors on sizes that were left out of the fit, each predicted from the others.

    fewer_gpus: median error where this GPU count is predicted from the next smaller one that was measured,
    None for the smallest.
    """

    median: Annotated[float, Field(ge=0)]
    p90: Annotated[float, Field(ge=0)]
    worst: Annotated[float, Field(ge=0)]
    num_samples: Annotated[int, Field(gt=0)]
    fewer_gpus: Annotated[float, Field(ge=0)] | None = None


class LinkEntry(Part):
    """One fit: time = latency_s + the bytes of each regime over its bandwidth.

    Sizes are those of one rank's whole buffer [B]. implementation: `nccl`, `one_shot`, `two_shot` (ours, over
    peer memory), `torch_one_shot`, `torch_two_shot`, `pinned`, `pageable`, `copy_engine`.
    valid_bytes: smallest and largest measured size.
    """

    collective: Annotated[str, Field(min_length=1)]
    implementation: Annotated[str, Field(min_length=1)]
    num_gpus: Annotated[int, Field(gt=0)]
    mode: LinkMode
    latency_s: FittedCoefficient
    regimes: Annotated[tuple[LinkRegime, ...], Field(min_length=1)]
    valid_bytes: tuple[float, float]
    num_samples: Annotated[int, Field(gt=0)]
    held_out: LinkHeldOut

    @model_validator(mode="after")
    def _regimes_rise(self) -> Self:
        edges = [regime.from_bytes for regime in self.regimes]
        if edges[0] != 0 or any(low >= high for low, high in pairwise(edges)):
            raise ValueError("regimes begin at 0 bytes and rise")
        return self


@dataclass(frozen=True, slots=True)
class LinkPrediction:
    """A time [s]. is_extrapolated: the size or the number of GPUs was not measured."""

    time_s: float
    is_extrapolated: bool


def wire_factor(collective: str, implementation: str, num_gpus: int) -> float:
    """Returns what one GPU sends (or receives) over its links, in units of its buffer.

    Source: NCCL's tests, doc/PERFORMANCE.md (bus bandwidth); one-shot reads every other buffer whole.
    """
    if collective == "all_reduce":
        if implementation.endswith("one_shot"):
            return num_gpus - 1
        return 2 * (num_gpus - 1) / num_gpus
    if collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return (num_gpus - 1) / num_gpus
    return 1.0


class _Curve:
    """An entry as arrays: edges [B], the time at each edge [s], and s per byte beyond it."""

    def __init__(self, entry: LinkEntry) -> None:
        self.entry = entry
        self.edges = [regime.from_bytes for regime in entry.regimes]
        self.s_per_byte = [1 / regime.bytes_per_s.value for regime in entry.regimes]
        self.latency_s = entry.latency_s.value
        self.edge_s = [self.latency_s]
        for (low, high), slope in zip(pairwise(self.edges), self.s_per_byte, strict=False):
            self.edge_s.append(self.edge_s[-1] + (high - low) * slope)

    def seconds(self, num_bytes: float) -> float:
        place = bisect_right(self.edges, num_bytes) - 1
        return self.edge_s[place] + (num_bytes - self.edges[place]) * self.s_per_byte[place]


class LinkModel:
    """Predicts collectives and copies on one calibrated host. Pure: no state changes after construction."""

    def __init__(self, entries: Sequence[LinkEntry]) -> None:
        curves: dict[tuple[str, str, LinkMode], dict[int, _Curve]] = {}
        for entry in entries:
            key = (entry.collective, entry.implementation, entry.mode)
            curves.setdefault(key, {})[entry.num_gpus] = _Curve(entry)
        self._curves: Mapping[tuple[str, str, LinkMode], Mapping[int, _Curve]] = curves

    def has(self, collective: str, implementation: str, mode: LinkMode = "graph") -> bool:
        """Returns whether any GPU count was measured."""
        return (collective, implementation, mode) in self._curves

    def predict(
        self,
        collective: str,
        implementation: str,
        *,
        num_bytes: float,
        num_gpus: int,
        mode: LinkMode = "graph",
    ) -> LinkPrediction:
        """Returns the time for buffers of `num_bytes` on `num_gpus` GPUs.

        Raises: KeyError if nothing of the kind was measured; ask `has` first.
        """
        curves = self._curves[collective, implementation, mode]
        curve = curves.get(num_gpus)
        if curve is not None:
            low, high = curve.entry.valid_bytes
            return LinkPrediction(curve.seconds(num_bytes), not low <= num_bytes <= high)
        return LinkPrediction(_other_count_s(curves, num_bytes, num_gpus), True)


def _other_count_s(curves: Mapping[int, _Curve], num_bytes: float, num_gpus: int) -> float:
    """Returns the time on a number of GPUs that was not measured.

    The nearest count's curve at the size that sends the same bytes, and the first byte's time on the line
    through the two nearest counts, over the number of peers.
    """
    near, *rest = sorted(curves, key=lambda count: (abs(count - num_gpus), -count))
    curve = curves[near]
    entry = curve.entry
    sent = wire_factor(entry.collective, entry.implementation, num_gpus)
    sent /= wire_factor(entry.collective, entry.implementation, near)
    peer_s = PEER_S
    if entry.collective == "send_recv":
        peer_s = 0.0
    elif rest:
        peer_s = max(0.0, (curve.latency_s - curves[rest[0]].latency_s) / (near - rest[0]))
    # Fewer GPUs save time, but never more than half of the first byte's: launch and first exchange remain.
    added_s = max(peer_s * (num_gpus - near), -curve.latency_s / 2)
    return curve.seconds(num_bytes * sent) + added_s
