"""vLLM's capture sizes and how steps are padded to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes


def test_default_sizes_reach_twice_the_sequences():
    assert vllm_capture_sizes(16) == (1, 2, 4, 8, 16, 24, 32)
    sizes = vllm_capture_sizes(128)
    assert len(sizes) == 35
    assert sizes[-3:] == (240, 248, 256)


def test_default_sizes_end_at_512_tokens():
    sizes = vllm_capture_sizes(1024)
    assert sizes[-3:] == (480, 496, 512)
    assert len(sizes) == 51


@pytest.mark.parametrize("tokens, padded", [(1, 1), (3, 4), (13, 16), (129, 136), (300, 304), (512, 512)])
def test_a_step_runs_at_the_next_captured_size(tokens, padded):
    assert CudaGraphSizes(vllm_capture_sizes(256)).pad(tokens) == padded


def test_a_step_beyond_the_largest_graph_is_not_padded():
    graphs = CudaGraphSizes(vllm_capture_sizes(128))
    assert (graphs.pad(257), graphs.captures(257), graphs.captures(256)) == (257, False, True)


def test_an_eager_engine_captures_nothing():
    eager = CudaGraphSizes(())
    assert (eager.pad(7), eager.captures(7), eager.captures(1)) == (7, False, False)


@given(tokens=st.integers(1, 600), max_num_seqs=st.integers(1, 400))
def test_padding_never_drops_tokens_and_is_stable(tokens, max_num_seqs):
    graphs = CudaGraphSizes(vllm_capture_sizes(max_num_seqs))
    padded = graphs.pad(tokens)
    assert padded >= tokens
    assert graphs.pad(padded) == padded


def test_sizes_may_come_in_any_order_but_must_hold_a_token():
    assert CudaGraphSizes((8, 1, 4, 4)).sizes == (1, 4, 8)
    with pytest.raises(SimllmError, match="at least 1 token, got 0"):
        CudaGraphSizes((0, 4))
