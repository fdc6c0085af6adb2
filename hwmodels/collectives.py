"""Times of collectives: as measured where a profile has links, else alpha-beta from the datasheet.

Alpha-beta is a latency per hop and the bytes over one GPU's links. Sizes are those of one rank's whole
buffer. Which links connect the ranks is decided by `tensor_link`; contention belongs to the simulator.
Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH" (2005).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2
from types import MappingProxyType
from typing import Literal

from ..errors import SimllmError
from ..units import KIB, MIB
from .device import DeviceSpec
from .link_profile import LinkEntry, LinkModel, LinkPrediction
from .roofline import Efficiency

# One hop's latency: write to the peer, flag, poll.
# Source: estimated; NCCL's small all-reduce over NVLink takes 8-20 us for 2-8 GPUs, vLLM's custom one-shot
# kernel 5-8 us (vLLM PR 2192), a PCIe round through host memory about twice as long.
NVLINK_LATENCY_S = 5e-6
PCIE_LATENCY_S = 10e-6

# vLLM reduces smaller messages by its own kernels over peer memory, where these numbers of GPUs are all
# connected by NVLink. Larger ones, and other numbers of GPUs, go to NCCL.
# Source: vLLM, distributed/device_communicators/custom_all_reduce.py: _SUPPORTED_WORLD_SIZES, max_size, and
# `inp_size < self.max_size`.
# SIMPLIFIED: no reduction inside the switch; effect: where NVLink multicast works, vLLM leaves its own
# kernels at 512 KiB (6 GPUs) or 256 KiB (8) on an H200 (all_reduce_utils.py) and is faster above.
CUSTOM_GPU_COUNTS = (2, 4, 6, 8)
CUSTOM_MAX_BYTES = 8 * MIB
# Below this they read all buffers at once. Source: vLLM, csrc/custom_all_reduce.cuh: one stage for 2 GPUs,
# and for up to 4 below 512 KiB, up to 8 below 256 KiB.
ONE_SHOT_MAX_BYTES = {4: 512 * KIB, 6: 256 * KIB, 8: 256 * KIB}

AllReduceImplementation = Literal["one_shot", "two_shot", "nccl"]
AllReduceAlgorithm = Literal["auto", "ring", "tree", "one_shot", "two_shot"]


@dataclass(frozen=True, slots=True)
class Link:
    """A rank's way to its peers. latency_s: per hop; bytes_per_s: one direction, all of its links."""

    latency_s: float
    bytes_per_s: float


def tensor_link(device: DeviceSpec, efficiency: Efficiency) -> Link:
    """Returns the link inside a host: NVLink (or its like) where the device has one, else PCIe.

    Raises: SimllmError if the device file names neither.
    """
    if device.nvlink_bytes_per_s_per_direction is not None:
        return Link(NVLINK_LATENCY_S, device.nvlink_bytes_per_s_per_direction * efficiency.link)
    if device.pcie_bytes_per_s_per_direction is not None:
        return Link(PCIE_LATENCY_S, device.pcie_bytes_per_s_per_direction * efficiency.link)
    raise SimllmError(f"device {device.name} has no NVLink and no PCIe rate, which tensor parallelism needs")


def ring_all_reduce_bytes(num_bytes: float, num_ranks: int) -> float:
    """Returns what one rank sends in a ring all-reduce, 2 (t - 1) / t of the buffer.

    80 layers x 2 all-reduces x 8,192 x 2 B over 8 ranks: 4.59 MB per GPU and token.
    """
    return 2 * (num_ranks - 1) / num_ranks * num_bytes


def ring_all_reduce_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time of a reduce-scatter ring followed by an all-gather ring."""
    hops = 2 * (num_ranks - 1)
    return hops * link.latency_s + ring_all_reduce_bytes(num_bytes, num_ranks) / link.bytes_per_s


def one_shot_all_reduce_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time when every rank reads all the others' buffers at once: one hop, more bytes."""
    return link.latency_s + (num_ranks - 1) * num_bytes / link.bytes_per_s


def two_shot_all_reduce_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time when every rank sums its share of all buffers, then reads the others' sums."""
    return 2 * link.latency_s + ring_all_reduce_bytes(num_bytes, num_ranks) / link.bytes_per_s


def tree_all_reduce_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time of sums up a tree and results down it, in pieces, over two trees at once.

    Two trees, each for half of the buffer, where a leaf of one is no leaf of the other: all links are busy.
    Source: Sanders, Speck, Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan"
    (2009), as in NCCL's double binary trees.
    """
    hops = 2 * ceil(log2(num_ranks))
    return hops * link.latency_s + 2 * num_bytes / link.bytes_per_s


def all_reduce_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time of the quicker algorithm: one-shot for small buffers, a ring for large ones."""
    if num_ranks == 1:
        return 0.0
    one_shot = one_shot_all_reduce_s(num_bytes, num_ranks, link)
    return min(one_shot, ring_all_reduce_s(num_bytes, num_ranks, link))


def all_gather_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time until every rank holds the whole buffer of `num_bytes`, of which it had 1/t."""
    if num_ranks == 1:
        return 0.0
    return (num_ranks - 1) * (link.latency_s + num_bytes / num_ranks / link.bytes_per_s)


def reduce_scatter_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time until every rank holds the sum of its 1/t of the buffer; the all-gather reversed."""
    return all_gather_s(num_bytes, num_ranks, link)


def all_to_all_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time until each rank has sent 1/t of its buffer to every other, all at once."""
    if num_ranks == 1:
        return 0.0
    return link.latency_s + (num_ranks - 1) / num_ranks * num_bytes / link.bytes_per_s


def broadcast_s(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Returns the time until the last rank has the buffer, which flows from each to the next in pieces."""
    return (num_ranks - 1) * link.latency_s + num_bytes / link.bytes_per_s if num_ranks > 1 else 0.0


def point_to_point_s(num_bytes: float, link: Link) -> float:
    """Returns the time of one message to one peer."""
    return link.latency_s + num_bytes / link.bytes_per_s


def vllm_all_reduce(num_bytes: float, num_gpus: int) -> AllReduceImplementation:
    """Returns the implementation that vLLM takes between GPUs that NVLink connects."""
    if num_gpus not in CUSTOM_GPU_COUNTS or num_bytes >= CUSTOM_MAX_BYTES:
        return "nccl"
    if num_gpus == 2 or num_bytes < ONE_SHOT_MAX_BYTES[num_gpus]:
        return "one_shot"
    return "two_shot"


ALGORITHMS: Mapping[str, Callable[[float, int, Link], float]] = MappingProxyType(
    {
        "ring": ring_all_reduce_s,
        "tree": tree_all_reduce_s,
        "one_shot": one_shot_all_reduce_s,
        "two_shot": two_shot_all_reduce_s,
    }
)


class Collectives:
    """Times of collectives on one kind of host, as vLLM runs them. Pure: no state changes what it returns.

    links: the measured ones of a profile; None or empty where nobody measured. Every time is in s, every size
    that of one rank's whole buffer [B]; one GPU alone communicates nothing.
    """

    def __init__(self, links: Sequence[LinkEntry] | None, device: DeviceSpec, efficiency: Efficiency) -> None:
        self._model = LinkModel(links or ())
        self._device = device
        self._efficiency = efficiency

    @cached_property
    def _link(self) -> Link:
        return tensor_link(self._device, self._efficiency)

    def all_reduce_s(self, num_bytes: float, num_gpus: int) -> float:
        """Returns the time until every rank has the sum. Raises: SimllmError if the device has no links."""
        return self._seconds("all_reduce", num_bytes, num_gpus, all_reduce_s)

    def all_reduce_by_s(self, algorithm: AllReduceAlgorithm, num_bytes: float, num_gpus: int) -> float:
        """Returns the same by one algorithm; measured ones where the profile has them (a ring is NCCL's)."""
        if algorithm == "auto" or num_gpus == 1:
            return self.all_reduce_s(num_bytes, num_gpus)
        implementation = {"ring": "nccl"}.get(algorithm, algorithm)
        if self._model.has("all_reduce", implementation):
            found = self._model.predict("all_reduce", implementation, num_bytes=num_bytes, num_gpus=num_gpus)
            return found.time_s
        return ALGORITHMS[algorithm](num_bytes, num_gpus, self._link)

    def all_gather_s(self, num_bytes: float, num_gpus: int) -> float:
        """Returns the time until every rank has the whole buffer, of which it had 1/n."""
        return self._seconds("all_gather", num_bytes, num_gpus, all_gather_s)

    def reduce_scatter_s(self, num_bytes: float, num_gpus: int) -> float:
        """Returns the time until every rank has the sum of its 1/n of the buffer."""
        return self._seconds("reduce_scatter", num_bytes, num_gpus, reduce_scatter_s)

    def all_to_all_s(self, num_bytes: float, num_gpus: int) -> float:
        """Returns the time until each rank has sent 1/n of its buffer to every other."""
        return self._seconds("all_to_all", num_bytes, num_gpus, all_to_all_s)

    def broadcast_s(self, num_bytes: float, num_gpus: int) -> float:
        """Returns the time until every rank has the first one's buffer."""
        return self._seconds("broadcast", num_bytes, num_gpus, broadcast_s)

    def send_recv_s(self, num_bytes: float, num_gpus: int = 2) -> float:
        """Returns the time of one message to the next rank, while every rank sends one."""
        return self._seconds(
            "send_recv", num_bytes, num_gpus, lambda size, _, link: point_to_point_s(size, link)
        )

    def is_extrapolated(self, collective: str, num_bytes: float, num_gpus: int) -> bool:
        """Returns whether links were measured, but not this size or this number of GPUs."""
        measured = self._measured(collective, num_bytes, num_gpus)
        return measured is not None and measured.is_extrapolated

    def _seconds(
        self, collective: str, num_bytes: float, num_gpus: int, datasheet: Callable[[float, int, Link], float]
    ) -> float:
        if num_gpus == 1:
            return 0.0
        measured = self._measured(collective, num_bytes, num_gpus)
        return datasheet(num_bytes, num_gpus, self._link) if measured is None else measured.time_s

    def _measured(self, collective: str, num_bytes: float, num_gpus: int) -> LinkPrediction | None:
        """Returns what the profile says of the implementation that runs, None if it says nothing."""
        implementation = vllm_all_reduce(num_bytes, num_gpus) if collective == "all_reduce" else "nccl"
        if num_gpus == 1 or not self._model.has(collective, implementation):
            return None
        return self._model.predict(collective, implementation, num_bytes=num_bytes, num_gpus=num_gpus)
