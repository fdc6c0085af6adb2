"""Random data to run kernels on: one pool per dtype, cut into as many cold operands as a point needs.

Random numbers, never zeros: a GPU draws less power on zeros and runs them faster.
"""

from __future__ import annotations

from math import ceil, prod

import torch

DTYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
# Twice the L2 of any GPU of today is cold when its turn comes again. Source: B200, 126 MB.
COLD_BYTES = 2 * 126e6
MAX_COPIES = 256
_ALIGNMENT = 1024  # elements; TMA and vector loads want 16 bytes
_CHUNK = 2**28  # elements drawn at a time, so that their fp32 ancestors fit


class Pool:
    """A long vector of random values, from which tensors are cut one after another, around and around."""

    def __init__(self, dtype: str, num_bytes: float, device: torch.device, seed: int = 0) -> None:
        self.dtype = DTYPES[dtype]
        generator = torch.Generator(device).manual_seed(seed)
        self._data = torch.empty(int(num_bytes / self.dtype.itemsize), dtype=self.dtype, device=device)
        for chunk in self._data.split(_CHUNK):
            if self.dtype == torch.int8:
                chunk.copy_(
                    torch.randint(
                        -127, 128, chunk.shape, device=device, dtype=torch.int8, generator=generator
                    )
                )
            else:
                chunk.copy_(
                    torch.randn(chunk.shape, device=device, dtype=torch.bfloat16, generator=generator)
                )
        self._next = 0

    def take(self, *shape: int) -> torch.Tensor:
        """Returns a contiguous tensor, of other memory than the last ones as long as the pool allows."""
        size = prod(shape)
        if size > self._data.numel():
            raise ValueError(f"a tensor of {size} elements exceeds the pool of {self._data.numel()}")
        if self._next + size > self._data.numel():
            self._next = 0
        part = self._data[self._next : self._next + size].view(shape)
        self._next += ceil(size / _ALIGNMENT) * _ALIGNMENT
        return part


class Pools:
    """The pools of all dtypes, each made when first asked for."""

    def __init__(self, num_bytes: float, device: str = "cuda") -> None:
        self.device = torch.device(device)
        self._num_bytes = num_bytes
        self._pools: dict[str, Pool] = {}

    def take(self, dtype: str, *shape: int) -> torch.Tensor:
        """Returns random values of `dtype`."""
        if dtype not in self._pools:
            self._pools[dtype] = Pool(dtype, self._num_bytes, self.device)
        return self._pools[dtype].take(*shape)


def num_copies(cold_bytes: float) -> int:
    """Returns how many copies of what must be cold a graph rotates through; a large one evicts itself."""
    return min(MAX_COPIES, ceil(COLD_BYTES / max(cold_bytes, 1)))
