"""What one rank launches for a point: NCCL's collectives, and all-reduces over peer memory."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
import torch.distributed as dist

from ..kernels import all_reduce
from .links_plan import ELEMENT_BYTES, LARGEST_PEER_BYTES, LinkPoint
from .links_timer import Launch

# bf16 rounds each sum by up to 2^-9 of it, and torch's kernels add in bf16 in an order of their own.
TOLERANCE = 2e-2
# Weights that are cold when their turn comes again: together twice the L2 of any GPU of today (B200, 126 MB).
COLD_BYTES = 2 * 126e6
DTYPE = torch.bfloat16


class RankGroup:
    """One rank among those that measure together. `control` is a group on the CPU for what they agree on."""

    def __init__(self, rank: int, num_gpus: int, device: torch.device) -> None:
        self.rank = rank
        self.num_gpus = num_gpus
        self.device = device
        self.control: Any = dist.new_group(backend="gloo")
        self.generator = torch.Generator(device=device).manual_seed(rank)
        self._symmetric: SymmetricMemory | None = None

    def largest(self, value: float) -> float:
        """Returns the largest value of all ranks."""
        shared = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self.control)
        return float(shared)

    def first_error(self, error: str) -> str:
        """Returns the error of the first rank that has one, to all of them."""
        errors: list[Any] = [None] * self.num_gpus
        dist.all_gather_object(errors, error, group=self.control)
        return next((found for found in errors if found), "")

    def random(self, num_elements: int) -> torch.Tensor:
        """Returns normal numbers, other ones on every rank."""
        return torch.randn(num_elements, dtype=DTYPE, device=self.device, generator=self.generator)

    @property
    def symmetric(self) -> SymmetricMemory:
        """Buffers that all ranks have mapped, made when first asked for. All ranks ask together."""
        if self._symmetric is None:
            self._symmetric = SymmetricMemory(self)
        return self._symmetric


class SymmetricMemory:
    """One rank's buffers in torch's symmetric memory, and the addresses of all the others'.

    x: what is reduced; large enough for the largest two-shot message.
    """

    def __init__(self, group: RankGroup) -> None:
        self.group_name: str = dist.group.WORLD.group_name
        num_bytes = max(LARGEST_PEER_BYTES.values())
        own_bytes = all_reduce.part_bytes(num_bytes, group.num_gpus)
        num_flags = all_reduce.MAX_BLOCKS * all_reduce.FLAG_STRIDE.value
        self.x, buffers = _shared(num_bytes // ELEMENT_BYTES, DTYPE, group)
        self._parts, parts = _shared(own_bytes // ELEMENT_BYTES, DTYPE, group)
        self._signals, signals = _shared(num_flags, torch.int32, group)
        self.peers = all_reduce.PeerMemory(
            rank=group.rank,
            num_ranks=group.num_gpus,
            num_bytes=num_bytes,
            buffers=buffers,
            parts=parts,
            signals=signals,
            epochs=torch.zeros(all_reduce.MAX_BLOCKS, dtype=torch.int32, device=group.device),
        )
        torch.cuda.synchronize()
        group.largest(0.0)  # every rank's flags are zero before any rank raises one


def _shared(num_elements: int, dtype: torch.dtype, group: RankGroup) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a zeroed tensor that all ranks map, and the addresses of all ranks' tensors."""
    from torch.distributed import _symmetric_memory as symmetric_memory

    own = symmetric_memory.empty(num_elements, dtype=dtype, device=group.device)
    own.zero_()
    handle = symmetric_memory.rendezvous(own, dist.group.WORLD.group_name)
    views = [handle.get_buffer(peer, (num_elements,), dtype) for peer in range(group.num_gpus)]
    return own, all_reduce.address_table(views, group.device)


def make_launch(point: LinkPoint, group: RankGroup) -> Launch:
    """Returns the collective of a point as this rank's part of it, tried once.

    Raises: RuntimeError, ValueError or NotImplementedError if this host or torch cannot do it.
    """
    if point.needs_peer_access:
        launch = _peer_all_reduce(point, group)
    else:
        launch = NCCL[point.collective](point, group)
        launch()
    if group.device.type == "cuda":
        torch.cuda.synchronize()
    return launch


def _peer_all_reduce(point: LinkPoint, group: RankGroup) -> Launch:
    """Returns an all-reduce over peer memory, its sums compared with NCCL's in fp32."""
    memory = group.symmetric
    x = memory.x[: point.num_bytes // ELEMENT_BYTES]
    x.copy_(group.random(x.numel()))
    expected = x.float()
    dist.all_reduce(expected)
    launch = _peer_launch(point.implementation, x, memory)
    error = float((launch().float() - expected).norm() / expected.norm())
    if not error <= TOLERANCE:
        raise RuntimeError(f"wrong sums: relative error {error:.1e}")
    return launch


def _peer_launch(implementation: str, x: torch.Tensor, memory: SymmetricMemory) -> Callable[[], torch.Tensor]:
    torch_ops: Any = torch.ops.symm_mem
    if implementation == "torch_one_shot":
        return lambda: torch_ops.one_shot_all_reduce(x, "sum", memory.group_name)
    if implementation == "torch_two_shot":
        return lambda: torch_ops.two_shot_all_reduce_(x, "sum", memory.group_name)
    if implementation == "one_shot":
        return lambda: all_reduce.one_shot_all_reduce(x, memory.peers)
    return lambda: all_reduce.two_shot_all_reduce(x, memory.peers)


def make_products(point: LinkPoint, group: RankGroup) -> tuple[Launch, Launch]:
    """Returns a row-parallel layer's product alone, and with the all-reduce of its output after it.

    Shapes: (rows, hidden / n) x (hidden / n, hidden), another weight of a cold set each time, as in the
    output projection of attention. Source: Megatron-LM (arXiv 1909.08053) section 3.
    """
    hidden = point.num_bytes // ELEMENT_BYTES // point.num_rows
    depth = hidden // group.num_gpus
    num_copies = ceil(COLD_BYTES / (hidden * depth * ELEMENT_BYTES))
    weights = [group.random(hidden * depth).view(depth, hidden) / hidden for _ in range(num_copies)]
    x = group.random(point.num_rows * depth).view(point.num_rows, depth)
    if point.needs_peer_access:
        flat = group.symmetric.x[: point.num_rows * hidden]
        reduce_launch: Launch = _peer_launch(point.implementation, flat, group.symmetric)
    else:
        flat = torch.empty(point.num_rows * hidden, dtype=DTYPE, device=group.device)
        reduce_launch = lambda: dist.all_reduce(flat)  # noqa: E731
    out = flat.view(point.num_rows, hidden)
    place = 0

    def multiply() -> None:
        nonlocal place
        torch.mm(x, weights[place % num_copies], out=out)
        place += 1

    def multiply_and_reduce() -> None:
        multiply()
        reduce_launch()

    return multiply, multiply_and_reduce


def _all_reduce(point: LinkPoint, group: RankGroup) -> Launch:
    x = _buffer(point, group)
    return lambda: dist.all_reduce(x)


def _all_gather(point: LinkPoint, group: RankGroup) -> Launch:
    whole = _buffer(point, group)
    part = whole.view(group.num_gpus, -1)[group.rank].clone()
    return lambda: dist.all_gather_into_tensor(whole, part)


def _reduce_scatter(point: LinkPoint, group: RankGroup) -> Launch:
    whole = _buffer(point, group)
    part = torch.empty_like(whole.view(group.num_gpus, -1)[0])
    return lambda: dist.reduce_scatter_tensor(part, whole)


def _all_to_all(point: LinkPoint, group: RankGroup) -> Launch:
    x = _buffer(point, group)
    out = torch.empty_like(x)
    return lambda: dist.all_to_all_single(out, x)


def _broadcast(point: LinkPoint, group: RankGroup) -> Launch:
    x = _buffer(point, group)
    return lambda: dist.broadcast(x, src=0)


def _send_recv(point: LinkPoint, group: RankGroup) -> Launch:
    """Every rank sends to the next and receives from the one before it, as pipeline stages do."""
    x = _buffer(point, group)
    out = torch.empty_like(x)
    after, before = ((group.rank + step) % group.num_gpus for step in (1, -1))

    def exchange() -> None:
        works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, x, after), dist.P2POp(dist.irecv, out, before)]
        )
        for work in works:
            work.wait()

    return exchange


def _buffer(point: LinkPoint, group: RankGroup) -> torch.Tensor:
    return group.random(point.num_bytes // ELEMENT_BYTES)


NCCL: dict[str, Callable[[LinkPoint, RankGroup], Launch]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "broadcast": _broadcast,
    "send_recv": _send_recv,
}
