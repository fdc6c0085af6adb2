"""How full a kernel leaves the SMs: the warps that fit one at a time, and the resource that runs out first.

Pure arithmetic over what the compiler says of a kernel and what the device offers. Few warps are no fault of
a kernel that keeps large tiles in registers and lets copies run ahead: such a kernel hides latency within a
warp. Rows of numbers that stream from HBM need many warps.
Source: CUDA C++ Programming Guide 13.0, tables "Technical Specifications per Compute Capability"; CUDA
occupancy calculator (registers in units of 256 a warp, 1 KiB of shared memory per CTA for the system).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

WARP_THREADS = 32
REGISTER_UNIT = 8  # per thread: 256 per warp
SYSTEM_SHARED_BYTES = 1024
# CTAs of an SM by major compute capability; minor ones of 8 have fewer. torch does not tell.
MAX_CTAS = {7: 32, 8: 32, 9: 32, 10: 32, 12: 24}


@dataclass(frozen=True, slots=True)
class SmLimits:
    """What one SM has to share out among CTAs."""

    warps: int
    ctas: int
    registers: int
    shared_bytes: int


class Occupancy(NamedTuple):
    """CTAs and warps of a kernel that one SM holds, the share of its warps, and what ends it."""

    ctas: int
    warps: int
    share: float
    limit: str


def device_limits(device: torch.device | str = "cuda") -> SmLimits:
    """Returns the limits of the device's SMs."""
    properties = torch.cuda.get_device_properties(device)
    return SmLimits(
        warps=properties.max_threads_per_multi_processor // WARP_THREADS,
        ctas=MAX_CTAS[properties.major],
        registers=properties.regs_per_multiprocessor,
        shared_bytes=properties.shared_memory_per_multiprocessor,
    )


def occupancy(limits: SmLimits, *, registers_per_thread: int, shared_bytes: int, num_warps: int) -> Occupancy:
    """Returns how many CTAs of `num_warps` warps and `shared_bytes` of shared memory an SM holds at once.

    168 registers and 4 warps: 168 * 128 = 21,504 of 65,536 registers, so 3 CTAs, 12 of 64 warps.
    """
    registers = -(-registers_per_thread // REGISTER_UNIT) * REGISTER_UNIT * WARP_THREADS * num_warps
    fitting = {
        "registers": limits.registers // max(1, registers),
        "shared memory": limits.shared_bytes // (shared_bytes + SYSTEM_SHARED_BYTES),
        "warps": limits.warps // num_warps,
        "CTAs": limits.ctas,
    }
    limit = min(fitting, key=lambda name: fitting[name])
    ctas = fitting[limit]
    return Occupancy(ctas, ctas * num_warps, ctas * num_warps / limits.warps, limit)
