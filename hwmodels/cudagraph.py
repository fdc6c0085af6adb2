"""Which batch sizes an engine captured as CUDA graphs, and how a step is padded to one.

A step of at most the largest captured size runs at the next captured one; a larger step launches its
kernels one by one, unpadded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from ..errors import SimllmError

# Source: vLLM 0.22, VllmConfig._set_cudagraph_sizes: [1, 2, 4], then every 8 up to 248, then every 16,
# up to min(2 * max_num_seqs, 512) tokens.
_SMALL_SIZES = (1, 2, 4)
_FINE_SIZES = range(8, 256, 8)
_COARSE_STEP = 16
_MAX_SIZE = 512


def vllm_capture_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Returns vLLM's default capture sizes [tokens] for at most `max_num_seqs` running requests."""
    largest = min(2 * max_num_seqs, _MAX_SIZE)
    sizes = (*_SMALL_SIZES, *_FINE_SIZES, *range(256, largest + 1, _COARSE_STEP))
    return tuple(size for size in sizes if size <= largest)


class CudaGraphSizes:
    """Captured sizes [tokens], ascending; empty for an engine that always runs eagerly.

    decodes_only: steps with prompts run eagerly whatever their size.
    """

    def __init__(self, sizes: Iterable[int], *, decodes_only: bool = False) -> None:
        """Raises: SimllmError for a size below 1."""
        self.decodes_only = decodes_only
        self.sizes = tuple(sorted(set(sizes)))
        if self.sizes and self.sizes[0] < 1:
            raise SimllmError(f"CUDA graph sizes must be at least 1 token, got {self.sizes[0]}")
        self.largest = self.sizes[-1] if self.sizes else 0

    def pad(self, num_tokens: int) -> int:
        """Returns the tokens that the linear layers compute for `num_tokens` real ones.

        vLLM: 13 -> 16, 129 -> 136, 300 -> 304; beyond the largest size nothing is padded.
        """
        if num_tokens > self.largest or num_tokens < 1:
            return num_tokens
        return self.sizes[bisect_left(self.sizes, num_tokens)]

    def captures(self, num_tokens: int) -> bool:
        """Returns whether a step of `num_tokens` replays a graph."""
        return num_tokens <= self.largest
