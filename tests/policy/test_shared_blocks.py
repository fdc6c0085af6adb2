"""Blocks shared by reference counts: forks, copies on write, and beams that come and go."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.policy.beams import BeamModel
from simllm.sim.policy.kv.shared import Run, SharedBlocks, SharedSequence, Tail

SIZE = 4


def test_two_samples_share_a_prompt_and_copy_its_last_block() -> None:
    # 7 tokens: one full block and three tokens of a second one. The first writer copies those, the second
    # then holds the old block alone and writes into it: 3 blocks, 4 without sharing.
    blocks = SharedBlocks(SIZE)
    first = blocks.start(7)
    second = blocks.fork(first)
    assert (blocks.num_blocks, blocks.num_needed()) == (2, 1)
    blocks.append(first)
    blocks.append(second)
    assert (blocks.num_blocks, blocks.num_unshared_blocks, blocks.num_copies) == (3, 4, 1)


def test_a_prompt_of_whole_blocks_is_never_copied() -> None:
    blocks = SharedBlocks(SIZE)
    first = blocks.start(8)
    second = blocks.fork(first)
    blocks.append(first)
    blocks.append(second)
    assert (blocks.num_blocks, blocks.num_copies) == (4, 0)


def test_what_the_last_holder_leaves_is_free() -> None:
    blocks = SharedBlocks(SIZE)
    first = blocks.start(7)
    second = blocks.fork(first)
    blocks.free(first)
    assert blocks.num_blocks == 2
    blocks.free(second)
    assert blocks.num_blocks == 0


def test_beams_of_one_parent_share_all_that_it_had() -> None:
    # Beam 1 dies, beam 0 goes on twice: its 2 full blocks stay, the dead beam's own block is free.
    blocks = SharedBlocks(SIZE)
    beams = [blocks.start(4)]
    beams.append(blocks.fork(beams[0]))
    for _ in range(4):
        for beam in beams:
            blocks.append(beam)
    assert blocks.num_blocks == 3
    beams = blocks.survive(beams, [0, 0])
    assert (blocks.num_blocks, blocks.num_unshared_blocks) == (2, 4)


def counted(blocks: SharedBlocks) -> int:
    """Blocks found by walking every sequence's table."""
    found: dict[Run | Tail, int] = {}
    for sequence in blocks.sequences:
        run: Run | None = sequence.run
        while run is not None:
            found[run] = run.num_blocks
            run = run.parent
        if sequence.tail is not None:
            found[sequence.tail] = 1
    return sum(found.values())


def held(sequence: SharedSequence) -> int:
    run: Run | None = sequence.run
    total = 0 if sequence.tail is None else 1
    while run is not None:
        total, run = total + run.num_blocks, run.parent
    return total


@given(
    prompt=st.integers(1, 13), orders=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60)
)
def test_reference_counts_hold_whatever_is_forked_written_and_freed(
    prompt: int, orders: list[tuple[int, int]]
) -> None:
    blocks = SharedBlocks(SIZE)
    blocks.start(prompt)
    for order, pick in orders:
        sequences = list(blocks.sequences)
        if not sequences:
            break
        sequence = sequences[pick % len(sequences)]
        if order == 0 and len(sequences) < 6:
            blocks.fork(sequence)
        elif order == 1 and len(sequences) > 1:
            blocks.free(sequence)
        else:
            needed, before = blocks.num_needed(), blocks.num_blocks
            for each in sequences:
                blocks.append(each)
            assert blocks.num_blocks == before + needed
        assert blocks.num_blocks == counted(blocks)
        assert all(held(each) == -(-each.num_tokens // SIZE) for each in blocks.sequences)
    for sequence in list(blocks.sequences):
        blocks.free(sequence)
    assert blocks.num_blocks == 0


@given(width=st.integers(1, 8), seed=st.integers(0, 99))
def test_as_many_beams_go_on_and_all_begin_with_the_prompt(width: int, seed: int) -> None:
    beams = BeamModel(width, np.random.default_rng(seed))
    assert beams.parents() == [0] * width
    later = beams.parents()
    assert len(later) == width
    assert set(later) <= set(range(width))


def test_the_same_seed_gives_the_same_beams() -> None:
    first, second = (BeamModel(4, np.random.default_rng(7)) for _ in range(2))
    assert [first.parents() for _ in range(20)] == [second.parents() for _ in range(20)]
