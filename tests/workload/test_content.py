from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.sim.request import ContentRun, output_content_id
from simllm.sim.workload.content import block_contents, format_runs, pack_contents, parse_runs

RUN = st.builds(ContentRun, st.integers(-5, 2**62), st.integers(1, 10**6))
ROWS = st.lists(st.none() | st.lists(RUN, min_size=1, max_size=4).map(tuple), max_size=8)


@given(ROWS)
def test_packed_rows_come_back_as_they_were(rows: list[tuple[ContentRun, ...] | None]) -> None:
    packed = pack_contents(rows)
    assert list(packed) == rows
    assert packed[1:3] == rows[1:3]


@given(st.none() | st.lists(RUN, min_size=1).map(tuple))
def test_a_formatted_cell_is_parsed_to_the_same_runs(runs: tuple[ContentRun, ...] | None) -> None:
    assert parse_runs(format_runs(runs)) == runs


def test_the_last_block_is_as_long_as_is_left() -> None:
    contents = block_contents(np.array([4, 5, 6, 4, 7]), np.array([3, 5]), np.array([1100, 1024]), 512)
    # After 4 the prompts part; 6 always follows 5, and makes one run with it.
    assert contents[0] == (ContentRun(4, 512), ContentRun(5, 512 + 76))
    assert contents[1] == (ContentRun(4, 512), ContentRun(7, 512))


CHAINS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=6)


@given(CHAINS, st.integers(1, 4))
def test_runs_of_blocks_share_what_the_blocks_shared(chains: list[list[int]], last_tokens: int) -> None:
    # Whatever the ids, even where they are no chain: blocks 0 1 2 and 0 1 3 share two blocks of 4 tokens.
    ids, ends = (
        np.array([block for chain in chains for block in chain]),
        np.cumsum([len(chain) for chain in chains]),
    )
    prompts = np.array([4 * (len(chain) - 1) + last_tokens for chain in chains])
    runs = [
        [(run.content_id, i) for run in content or () for i in range(run.num_tokens)]
        for content in block_contents(ids, ends, prompts, 4)
    ]
    blocks = [
        [(block, i) for block in chain for i in range(4)][:prompt]
        for chain, prompt in zip(chains, prompts, strict=True)
    ]
    assert [len(tokens) for tokens in runs] == list(prompts)
    for one in range(len(chains)):
        for other in range(one):
            assert shared(runs[one], runs[other]) == shared(blocks[one], blocks[other])


def shared(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> int:
    """Returns how many tokens two prompts begin with together."""
    pairs = list(zip(one, other, strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def test_an_index_beyond_the_rows_is_an_error() -> None:
    packed = pack_contents([None, ((1, 2),)])
    assert packed[-1] == (ContentRun(1, 2),)
    with pytest.raises(IndexError):
        packed[2]


def test_answers_keep_their_requests_when_rows_are_reordered() -> None:
    # Row 2 continues from the answer of row 0; row 0 becomes row 1, row 2 becomes row 0.
    rows = [((9, 5),), None, ((9, 5), (output_content_id(0), 3), (8, 2))]
    moved = pack_contents(rows).reordered(np.array([2, 0, 1]))
    assert list(moved) == [((9, 5), (output_content_id(1), 3), (8, 2)), ((9, 5),), None]
