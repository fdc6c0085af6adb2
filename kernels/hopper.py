"""What the kernels written for Hopper share: the device check, barriers, registers and shared memory."""

from __future__ import annotations

import torch
from triton.experimental.gluon import language as gl

CAPABILITY = (9, 0)
# What a warpgroup that only starts copies keeps: the least that setmaxnreg gives. Source: PTX ISA.
PRODUCER_REGISTERS = 24
# Registers of a thread that multiplies, by the number of such warpgroups: all warpgroups of a CTA together
# hold the SM's 512 a lane. Source: CUDA programming guide, compute capability 9.0: 64 K registers.
CONSUMER_REGISTERS = {2: 240, 3: 152}
# Shared memory of a CTA less a KiB for barriers. Source: as above: 227 KiB.
SHARED_BYTES = 226 * 1024
# Triton 3.6 calls it thread_barrier, later versions barrier. It joins the warps of one partition.
cta_barrier = gl.thread_barrier if hasattr(gl, "thread_barrier") else gl.barrier


def is_hopper() -> bool:
    """Returns whether the current device is a Hopper GPU."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == CAPABILITY
