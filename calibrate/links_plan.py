"""What to measure of a host's links: collectives, peer-memory all-reduces and copies, over message sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ..errors import CalibrationError, nearest_choice
from ..hwmodels.link_profile import LinkMode
from ..units import GIB, KIB, MIB

NCCL_COLLECTIVES = (
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv",
)  # fmt: skip
PEER_IMPLEMENTATIONS = ("torch_one_shot", "torch_two_shot", "one_shot", "two_shot")
"""All-reduces that read other GPUs' memory: torch's, and ours of `kernels.all_reduce`."""

HOST_COPIES = ("host_to_device", "device_to_host", "host_both_ways")
PEER_COPIES = ("peer_copy", "peer_both_ways")
IMPLEMENTATIONS = ("nccl", *PEER_IMPLEMENTATIONS, "pinned", "pageable", "copy_engine")

SMALLEST_BYTES, LARGEST_BYTES = KIB, 256 * MIB
# One-shot reads (n - 1) whole buffers: beyond these sizes every engine has left it.
LARGEST_PEER_BYTES = {"one_shot": 16 * MIB, "two_shot": 64 * MIB}
COPY_SMALLEST_BYTES, COPY_LARGEST_BYTES = 4 * KIB, 256 * MIB
# Several copies at once are started from Python one after the other: smaller ones would end before that.
TOGETHER_SMALLEST_BYTES = 2 * MIB
PEER_SMALLEST_BYTES, PEER_LARGEST_BYTES = 64 * KIB, GIB
PEERS_TOGETHER_SMALLEST_BYTES = 8 * MIB
# Between these, where an engine's activations lie, sizes are three times as dense.
DENSE_BYTES = (8 * KIB, 16 * MIB)
# Rows of activations that a product hands to an all-reduce: decode batches, and a prefill chunk.
GEMM_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048)
GEMM_HIDDEN = (4096, 5120)  # Source: Llama-3.1-8B and Qwen3-8B; Qwen3-32B (Hugging Face config.json)
ELEMENT_BYTES = 2  # bf16


@dataclass(frozen=True, slots=True)
class LinkPoint:
    """One measurement. num_bytes: of one rank's whole buffer, or of one copy in one direction.

    num_gpus: ranks; for host copies the GPUs that copy at the same time.
    num_rows: of the activations whose product goes before (mode `after_gemm`), else 0.
    """

    collective: str
    implementation: str
    num_gpus: int
    mode: LinkMode
    num_bytes: int
    num_rows: int = 0

    @property
    def is_copy(self) -> bool:
        """Whether one process copies, instead of one rank per GPU taking part."""
        return self.collective in HOST_COPIES + PEER_COPIES

    @property
    def needs_peer_access(self) -> bool:
        """Whether GPUs must be able to read each other's memory."""
        return self.implementation in PEER_IMPLEMENTATIONS


def make_link_plan(gpu_counts: Sequence[int], implementations: Sequence[str] = ()) -> list[LinkPoint]:
    """Returns all points, those that a coarse look needs first; implementations: only these, if any.

    Raises: CalibrationError for an unknown implementation.
    """
    for name in implementations:
        if name not in IMPLEMENTATIONS:
            nearest = nearest_choice(name, IMPLEMENTATIONS)
            hint = f"one of {', '.join(IMPLEMENTATIONS)}" if nearest is None else f"did you mean {nearest!r}?"
            raise CalibrationError(f"implementation {name!r} is unknown; {hint}")
    points = [point for count in gpu_counts for point in _group_points(count)] + list(_copies(gpu_counts))
    kept = [point for point in points if not implementations or point.implementation in implementations]
    return sorted(kept, key=_coarseness)


def _coarseness(point: LinkPoint) -> int:
    """Returns 0 for what a coarse look needs, and more the less a point adds to it."""
    if point.mode == "after_gemm":
        return 1
    is_power = point.num_bytes & (point.num_bytes - 1) == 0
    is_coarse = is_power and point.num_bytes.bit_length() % 2 == 1
    return (0 if is_coarse else 1 if is_power else 2) + (2 if point.mode == "eager" else 0)


def _powers(smallest: int, largest: int) -> list[int]:
    return [1 << power for power in range(smallest.bit_length() - 1, largest.bit_length())]


def message_sizes(smallest: int, largest: int) -> list[int]:
    """Returns powers of two, and in the range of activations also 5/4 and 3/2 of them, sorted."""
    powers = _powers(smallest, largest)
    dense = [
        power * step // 4 for power in powers for step in (5, 6) if DENSE_BYTES[0] <= power <= DENSE_BYTES[1]
    ]
    return sorted(size for size in powers + dense if smallest <= size <= largest)


def _group_points(num_gpus: int) -> Iterator[LinkPoint]:
    for collective in NCCL_COLLECTIVES:
        yield from _over_sizes(collective, "nccl", num_gpus, LARGEST_BYTES)
    for implementation in PEER_IMPLEMENTATIONS:
        largest = LARGEST_PEER_BYTES[implementation.removeprefix("torch_")]
        yield from _over_sizes("all_reduce", implementation, num_gpus, largest)
    for implementation, rows, hidden in product(("nccl", "one_shot", "two_shot"), GEMM_ROWS, GEMM_HIDDEN):
        size = rows * hidden * ELEMENT_BYTES
        if size <= LARGEST_PEER_BYTES.get(implementation, LARGEST_BYTES):
            yield LinkPoint("all_reduce", implementation, num_gpus, "after_gemm", size, num_rows=rows)


def _over_sizes(collective: str, implementation: str, num_gpus: int, largest: int) -> Iterator[LinkPoint]:
    for size in message_sizes(SMALLEST_BYTES, largest):
        yield LinkPoint(collective, implementation, num_gpus, "graph", size)
    for size in _powers(SMALLEST_BYTES, largest):
        yield LinkPoint(collective, implementation, num_gpus, "eager", size)


def _copies(gpu_counts: Sequence[int]) -> Iterator[LinkPoint]:
    """Yields one GPU's copies in graphs and from Python, then those of several GPUs or both ways at once."""
    for collective, size in product(HOST_COPIES, _powers(COPY_SMALLEST_BYTES, COPY_LARGEST_BYTES)):
        yield LinkPoint(collective, "pinned", 1, "graph", size)
        if collective != "host_both_ways":  # two at once only where nobody waits for Python
            yield LinkPoint(collective, "pinned", 1, "eager", size)
            yield LinkPoint(collective, "pageable", 1, "eager", size)
    together = _powers(TOGETHER_SMALLEST_BYTES, COPY_LARGEST_BYTES)
    for collective, num_gpus, size in product(HOST_COPIES, gpu_counts, together):
        yield LinkPoint(collective, "pinned", num_gpus, "eager", size)
    if gpu_counts:
        for size in _powers(PEER_SMALLEST_BYTES, PEER_LARGEST_BYTES):
            yield LinkPoint("peer_copy", "copy_engine", 2, "eager", size)
            if size >= PEERS_TOGETHER_SMALLEST_BYTES:
                yield LinkPoint("peer_both_ways", "copy_engine", 2, "eager", size)
