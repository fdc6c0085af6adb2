"""All-reduce over peer memory: every rank reads the others' buffers through NVLink, in one launch.

Shapes: x (num_elements,) in memory that all ranks have mapped, out (num_elements,), the sum over ranks.
One-shot reads all buffers whole: one exchange, (n - 1) x bytes. Two-shot reduces an n-th of the buffer, then
collects the other parts: one exchange more, 2 (n - 1) / n x bytes.
Paper: MSCCL++, arXiv 2504.09014, the all-pairs algorithms with one and two phases. Grid and threads are those
of vLLM's kernels (csrc/custom_all_reduce.cuh: 36 blocks of 512 threads), for which these stand in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..hwmodels import ops
from .gemm import DTYPE_NAMES

# More blocks contend for the links. Source: vLLM, csrc/custom_all_reduce.cuh, block_limit.
MAX_BLOCKS = 36
NUM_WARPS = 16
ALIGNMENT_BYTES = 16
BLOCK_BYTES = 32 * NUM_WARPS * ALIGNMENT_BYTES  # one 16-byte load of every thread
# Loads of 16 bytes that a thread has under way, of all ranks together; more would not fit its registers.
MAX_LOADS = 16
MAX_LOADS_PER_RANK = 4
FLAG_STRIDE = tl.constexpr(32)  # int32 of a block's flags: a line of L2 for each block


@triton.jit
def _meet(signals_ptr, rank, epoch, NUM_RANKS: tl.constexpr, PADDED: tl.constexpr):
    """Waits until this block of every rank has come here for the `epoch`th time.

    Each rank counts up its own flag in every rank's memory: released after all that its block wrote, acquired
    before anything that the block reads next. Only atomics poll, since a tensor's loads would come from every
    warp, and the flags' lines would have no time for the peers' writes.
    """
    tl.debug_barrier()
    peers = tl.arange(0, PADDED)
    is_peer = peers < NUM_RANKS
    row = tl.program_id(0) * FLAG_STRIDE
    flags = tl.load(signals_ptr + peers, mask=is_peer, other=0).to(tl.pointer_type(tl.int32))
    tl.atomic_xchg(flags + row + rank, epoch, mask=is_peer, sem="release", scope="sys")
    own = tl.load(signals_ptr + rank).to(tl.pointer_type(tl.int32)) + row + peers
    num_met = 0
    while num_met < NUM_RANKS:
        flag = tl.atomic_add(own, 0, mask=is_peer, sem="acquire", scope="sys")
        num_met = tl.sum(((flag >= epoch) & is_peer).to(tl.int32), 0)
    tl.debug_barrier()


@triton.jit
def _sum_of_peers(buffers_ptr, out_ptr, offsets, is_element, NUM_RANKS: tl.constexpr, BLOCK: tl.constexpr):
    """Returns the fp32 sum of all ranks' buffers, in the order of ranks so that all ranks get the same."""
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for peer in tl.static_range(NUM_RANKS):
        buffer = tl.load(buffers_ptr + peer).to(tl.pointer_type(out_ptr.dtype.element_ty))
        part = tl.multiple_of(buffer, 16) + offsets
        total += tl.load(part, mask=is_element, other=0.0).to(tl.float32)
    return total


@triton.jit
def _one_shot_kernel(
    buffers_ptr,  # (NUM_RANKS,) addresses of the inputs
    signals_ptr,  # (NUM_RANKS,) addresses of the flags, (blocks, FLAG_STRIDE) each
    epochs_ptr,  # (blocks,) how often each block has met
    out_ptr,
    rank,
    num_elements,
    NUM_RANKS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (blocks,). The second meeting keeps inputs as they are until every rank has read them."""
    epoch = tl.load(epochs_ptr + tl.program_id(0))
    _meet(signals_ptr, rank, epoch + 1, NUM_RANKS, PADDED)
    for start in range(tl.program_id(0) * BLOCK, num_elements, tl.num_programs(0) * BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        is_element = offsets < num_elements
        total = _sum_of_peers(buffers_ptr, out_ptr, offsets, is_element, NUM_RANKS, BLOCK)
        tl.store(out_ptr + offsets, total.to(out_ptr.dtype.element_ty), mask=is_element)
    _meet(signals_ptr, rank, epoch + 2, NUM_RANKS, PADDED)
    tl.store(epochs_ptr + tl.program_id(0), epoch + 2)


@triton.jit
def _two_shot_kernel(
    buffers_ptr,  # (NUM_RANKS,) addresses of the inputs
    parts_ptr,  # (NUM_RANKS,) addresses of the reduced parts, (part_elements,) each
    signals_ptr,  # (NUM_RANKS,) addresses of the flags, (blocks, FLAG_STRIDE) each
    epochs_ptr,  # (blocks,) how often each block has met
    out_ptr,
    rank,
    num_elements,
    part_elements,
    NUM_RANKS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid (blocks,). A block collects what the same block of the other ranks has reduced.

    No third meeting: whoever leaves has met all ranks after they read the inputs, and a rank writes its part
    again only after the next launch's first meeting.
    """
    epoch = tl.load(epochs_ptr + tl.program_id(0))
    _meet(signals_ptr, rank, epoch + 1, NUM_RANKS, PADDED)
    own = tl.load(parts_ptr + rank).to(tl.pointer_type(out_ptr.dtype.element_ty))
    first, step = tl.program_id(0) * BLOCK, tl.num_programs(0) * BLOCK
    for start in range(first, part_elements, step):
        within = start + tl.arange(0, BLOCK)
        offsets = rank * part_elements + within
        is_element = (within < part_elements) & (offsets < num_elements)
        total = _sum_of_peers(buffers_ptr, out_ptr, offsets, is_element, NUM_RANKS, BLOCK)
        tl.store(tl.multiple_of(own, 16) + within, total.to(out_ptr.dtype.element_ty), mask=is_element)
    peers = tl.arange(0, PADDED)[:, None]
    parts = tl.zeros((PADDED, 1), dtype=tl.int64)
    for peer in tl.static_range(NUM_RANKS):  # few loads of scalars instead of one per element
        parts = tl.where(peers == peer, tl.load(parts_ptr + peer), parts)
    _meet(signals_ptr, rank, epoch + 2, NUM_RANKS, PADDED)
    # All parts of a step are asked for before the first of them is stored.
    parts = tl.multiple_of(parts.to(tl.pointer_type(out_ptr.dtype.element_ty)), (16, 16))
    for start in range(first, part_elements, step):
        within = start + tl.arange(0, BLOCK)[None, :]
        offsets = peers * part_elements + within
        is_element = (peers < NUM_RANKS) & (within < part_elements) & (offsets < num_elements)
        reduced = tl.load(parts + within, mask=is_element)
        tl.store(out_ptr + offsets, reduced, mask=is_element)
    tl.store(epochs_ptr + tl.program_id(0), epoch + 2)


@dataclass(frozen=True, slots=True)
class PeerMemory:
    """What one rank knows of all ranks' memory; every rank makes one, from buffers that all have mapped.

    buffers, parts, signals: (num_ranks,) int64, addresses as this rank's device sees them. Signals are
    (MAX_BLOCKS, FLAG_STRIDE) int32, zero before the first launch, as are this rank's epochs, (MAX_BLOCKS,).
    num_bytes: size of each buffer; a part needs `part_bytes` of it.
    """

    rank: int
    num_ranks: int
    num_bytes: int
    buffers: torch.Tensor
    parts: torch.Tensor
    signals: torch.Tensor
    epochs: torch.Tensor


def address_table(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Returns the addresses of all ranks' tensors, as this process has mapped them, on `device`."""
    return torch.tensor([tensor.data_ptr() for tensor in tensors], dtype=torch.int64, device=device)


def part_bytes(num_bytes: int, num_ranks: int) -> int:
    """Returns what a rank reduces of a buffer in two-shot: an n-th, in whole 16-byte units."""
    return triton.cdiv(num_bytes, num_ranks * ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def one_shot_all_reduce(x: torch.Tensor, peers: PeerMemory) -> torch.Tensor:
    """Returns the sum of all ranks' `x`, which lies at the start of this rank's buffer. All ranks call it.

    Raises: ValueError if x is no flat contiguous vector of whole 16-byte units within the buffer.
    """
    _check(x, peers)
    out = torch.empty_like(x)
    block = _block_bytes(x.nbytes, peers.num_ranks) // x.itemsize
    _one_shot_kernel[(_num_blocks(x.numel(), block),)](
        peers.buffers,
        peers.signals,
        peers.epochs,
        out,
        peers.rank,
        x.numel(),
        NUM_RANKS=peers.num_ranks,
        PADDED=triton.next_power_of_2(peers.num_ranks),
        BLOCK=block,
        num_warps=NUM_WARPS,
    )
    return out


def two_shot_all_reduce(x: torch.Tensor, peers: PeerMemory) -> torch.Tensor:
    """Returns the sum of all ranks' `x`, which lies at the start of this rank's buffer. All ranks call it.

    Raises: ValueError if x is no flat contiguous vector of whole 16-byte units within the buffer.
    """
    _check(x, peers)
    out = torch.empty_like(x)
    own_bytes = part_bytes(x.nbytes, peers.num_ranks)
    block = _block_bytes(own_bytes, peers.num_ranks) // x.itemsize
    part_elements = own_bytes // x.itemsize
    _two_shot_kernel[(_num_blocks(part_elements, block),)](
        peers.buffers,
        peers.parts,
        peers.signals,
        peers.epochs,
        out,
        peers.rank,
        x.numel(),
        part_elements,
        NUM_RANKS=peers.num_ranks,
        PADDED=triton.next_power_of_2(peers.num_ranks),
        BLOCK=block,
        num_warps=NUM_WARPS,
    )
    return out


def _check(x: torch.Tensor, peers: PeerMemory) -> None:
    if x.ndim != 1 or not x.is_contiguous() or x.nbytes % ALIGNMENT_BYTES or not x.numel():
        raise ValueError(
            f"expected a flat vector of whole {ALIGNMENT_BYTES}-byte units, got {tuple(x.shape)} {x.dtype}"
        )
    if x.nbytes > peers.num_bytes:
        raise ValueError(f"x has {x.nbytes} bytes, the ranks' buffers {peers.num_bytes}")


def _block_bytes(num_bytes: int, num_ranks: int) -> int:
    """Returns what a block sums at a time: more loads per thread where the buffer has work for all blocks."""
    loads = min(MAX_LOADS_PER_RANK, MAX_LOADS // num_ranks, num_bytes // (MAX_BLOCKS * BLOCK_BYTES))
    return BLOCK_BYTES << max(1, loads).bit_length() - 1


def _num_blocks(num_elements: int, block: int) -> int:
    return min(MAX_BLOCKS, triton.cdiv(num_elements, block))


def all_reduce_oracle(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the sum over ranks, in float64."""
    return torch.stack([x.double() for x in inputs]).sum(0)


def launch_work(num_elements: int, num_ranks: int, dtype: torch.dtype) -> ops.Op:
    """Returns one rank's FLOPs and HBM traffic: its buffer read, the sum written."""
    return ops.elementwise(
        "all_reduce",
        num_read=num_elements,
        num_written=num_elements,
        dtype=DTYPE_NAMES[dtype],
        flops=float((num_ranks - 1) * num_elements),
    )
