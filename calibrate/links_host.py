"""The GPUs of a host as the measurement of links needs them: how many, how connected, which NCCL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from itertools import permutations

from ..errors import CalibrationError
from .host import describe_host

# What NCCL and torch were told about in-switch reduction, which changes every large all-reduce.
_SETTINGS = ("NCCL_NVLS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST", "NCCL_ALGO", "NCCL_PROTO")


def default_gpu_counts(num_available: int) -> tuple[int, ...]:
    """Returns 2, 4, 8, ... up to the GPUs of the host."""
    return tuple(1 << power for power in range(1, num_available.bit_length()) if 1 << power <= num_available)


def check_gpu_counts(gpu_counts: Sequence[int], *, needs_peer_access: bool) -> tuple[int, ...]:
    """Returns the numbers of GPUs to measure, all that make sense if none is asked for.

    Raises: CalibrationError, one line, if this host has no GPU, too few of them, or needs_peer_access and
    two of them cannot reach each other's memory.
    """
    describe_host()
    import torch

    num_available = torch.cuda.device_count()
    if not gpu_counts:
        counts = default_gpu_counts(num_available)
        if not counts:
            raise CalibrationError("links between GPUs need at least 2 GPUs, this host has 1")
    else:
        counts = tuple(sorted(set(gpu_counts)))
        if not 2 <= counts[0] <= counts[-1] <= num_available:
            asked = ", ".join(map(str, counts))
            raise CalibrationError(f"--gpus {asked}: this host has {num_available}; choose from 2 to that")
    if needs_peer_access:
        _check_peers(counts[-1])
    return counts


def _check_peers(num_gpus: int) -> None:
    import torch

    for one, other in permutations(range(num_gpus), 2):
        if not torch.cuda.can_device_access_peer(one, other):
            raise CalibrationError(
                f"GPU {one} cannot reach the memory of GPU {other}; measure what needs no peer access with "
                "--implementations nccl,pinned,pageable"
            )


def describe_links_host() -> Mapping[str, str]:
    """Returns the provenance of link measurements: the GPU host, its links, NCCL and its settings."""
    import torch

    nccl = ".".join(str(part) for part in torch.cuda.nccl.version())
    settings = {name: os.environ[name] for name in _SETTINGS if name in os.environ}
    links = {"num_gpus": str(torch.cuda.device_count()), "nccl": nccl, "gpu_links": _gpu_links()}
    return {**describe_host(), **links, **settings}


def _gpu_links() -> str:
    """Returns how GPU 0 reaches GPU 1 in nvidia-smi's words: `NV18` are 18 NVLinks, `PHB` is PCIe."""
    command = ["nvidia-smi", "topo", "-m"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    rows = [line.split() for line in lines.splitlines() if line.startswith("GPU0")]
    return rows[0][2] if rows and len(rows[0]) > 2 else "unknown"
