"""All-reduce over peer memory: ranks are processes that map each other's buffers in the CPU's memory."""

# ruff: noqa: E402 (what follows can be imported only where torch and Triton are)
from __future__ import annotations

from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
pytest.importorskip("triton", reason="kernels need Triton")

import torch.multiprocessing as multiprocessing

from simllm.kernels import all_reduce

from .tolerance import assert_close

# Three ranks: a number that is no power of two, and parts that do not divide the buffer evenly.
NUM_RANKS = 3
SIZES = (8, 4096, 9000)  # elements: less than a part a rank, one block, several


def shared(*shape: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.zeros(*shape, dtype=dtype).share_memory_() for _ in range(NUM_RANKS)]


def reduce_as_rank(
    rank: int, buffers: Sequence[torch.Tensor], parts: Sequence[torch.Tensor], signals, outs
) -> None:
    """What one rank does: both algorithms over every size, on one set of flags."""
    torch.set_num_threads(1)
    tables = [all_reduce.address_table(each, torch.device("cpu")) for each in (buffers, parts, signals)]
    epochs = torch.zeros(all_reduce.MAX_BLOCKS, dtype=torch.int32)
    peers = all_reduce.PeerMemory(rank, NUM_RANKS, buffers[rank].nbytes, *tables, epochs)
    for place, size in enumerate(SIZES):
        x = buffers[rank][:size]
        outs[rank][place, 0, :size] = all_reduce.one_shot_all_reduce(x, peers)
        outs[rank][place, 1, :size] = all_reduce.two_shot_all_reduce(x, peers)


@pytest.fixture(scope="module")
def reduced() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Every rank's input, and what every rank got for each size from one-shot and two-shot."""
    if torch.cuda.is_available():
        pytest.skip("buffers in CPU memory need the interpreter; on GPUs, measuring compares the sums")
    strategy = multiprocessing.get_sharing_strategy()
    multiprocessing.set_sharing_strategy("file_system")
    try:
        buffers = shared(SIZES[-1], dtype=torch.float16)
        for buffer in buffers:
            buffer.copy_(torch.randn(SIZES[-1]))
        parts = shared(SIZES[-1], dtype=torch.float16)
        signals = shared(all_reduce.MAX_BLOCKS, all_reduce.FLAG_STRIDE.value, dtype=torch.int32)
        outs = shared(len(SIZES), 2, SIZES[-1], dtype=torch.float16)
        multiprocessing.spawn(reduce_as_rank, (buffers, parts, signals, outs), nprocs=NUM_RANKS)
        return buffers, outs
    finally:
        multiprocessing.set_sharing_strategy(strategy)


@pytest.mark.parametrize("place", range(len(SIZES)))
@pytest.mark.parametrize("algorithm", [0, 1], ids=["one_shot", "two_shot"])
def test_every_rank_gets_the_sum_of_all(reduced, algorithm: int, place: int) -> None:
    inputs, outs = reduced
    size = SIZES[place]
    expected = all_reduce.all_reduce_oracle([x[:size] for x in inputs])
    for out in outs:
        assert_close(out[place, algorithm, :size], expected)


def test_all_ranks_get_the_same_bits(reduced) -> None:
    _, outs = reduced
    assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(8, 2), torch.zeros(16)[::2], torch.zeros(4096)])
def test_a_buffer_that_the_ranks_do_not_share_is_refused(x: torch.Tensor) -> None:
    # Half a unit of 16 bytes, a matrix, a stride, and more than the shared buffers hold.
    table = all_reduce.address_table([x, x], x.device)
    peers = all_reduce.PeerMemory(0, 2, 1024, table, table, table, torch.zeros(1, dtype=torch.int32))
    x = x.half() if x.numel() == 4 else x
    for reduce in (all_reduce.one_shot_all_reduce, all_reduce.two_shot_all_reduce):
        with pytest.raises(ValueError, match=r"flat vector|bytes"):
            reduce(x, peers)


def test_a_part_is_an_nth_in_whole_units() -> None:
    # 48 B over 3 ranks are 16 B each; 16 B more need a whole unit more of each.
    assert all_reduce.part_bytes(48, 3) == 16
    assert all_reduce.part_bytes(64, 3) == 32


def test_work_counts_the_own_buffer_once_in_and_once_out() -> None:
    # 1,000 fp16 elements read and written, and two additions each for three ranks.
    work = all_reduce.launch_work(1000, 3, torch.float16)
    assert (work.hbm_bytes, work.flops) == (4000, 2000)
