"""Alpha-beta times of collectives: a latency per hop and the bytes over one GPU's links.

Sizes are those of one rank's whole buffer. Which links connect the ranks is decided by `tensor_link`;
contention with other traffic belongs to the simulator.
Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH" (2005).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SimllmError
from .device import DeviceSpec
from .roofline import Efficiency

# One hop's latency: write to the peer, flag, poll.
# Source: estimated; NCCL's small all-reduce over NVLink takes 8-20 us for 2-8 GPUs, vLLM's custom one-shot
# kernel 5-8 us (vLLM PR 2192), a PCIe round through host memory about twice as long.
NVLINK_LATENCY_S = 5e-6
PCIE_LATENCY_S = 10e-6


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


def point_to_point_s(num_bytes: float, link: Link) -> float:
    """Returns the time of one message to one peer."""
    return link.latency_s + num_bytes / link.bytes_per_s
