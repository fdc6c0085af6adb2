"""Older attention of prompts: what it moves through HBM, and that newer algorithms are faster."""

from __future__ import annotations

import pytest

from simllm.hwmodels.attention_algorithms import OlderPrefill
from simllm.hwmodels.attention_cost import PrefillAttention
from simllm.hwmodels.layers import LayerOps
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.roofline import Efficiency, Roofline
from simllm.hwmodels.step import Chunk


@pytest.fixture
def roofline(h200) -> Roofline:
    return Roofline(h200, Efficiency())


@pytest.fixture
def llama(llama_8b, h200) -> LayerOps:
    return LayerOps(llama_8b, ParallelSpec(), Precision.on(h200, weight="bf16", activation="bf16", kv="bf16"))


def test_naive_scores_pass_through_hbm_four_times(llama, roofline, h200):
    # 32 layers x 4 passes x 16,384^2 scores x 32 heads x 2 B: 2.2 TB, and rows of Q, K, V and O beside them.
    seconds, bound = OlderPrefill(llama, roofline, "naive").seconds((Chunk(16_384, 0),))
    scores_s = 32 * 4 * 16_384**2 * 32 * 2 / (h200.hbm_bytes_per_s * 0.85)
    assert bound == "hbm"
    assert scores_s < seconds < 1.01 * scores_s


@pytest.mark.parametrize("tokens", [2048, 16_384])
def test_newer_algorithms_are_faster(llama, roofline, tokens):
    chunks = (Chunk(tokens, 0),)
    naive, fa1 = (OlderPrefill(llama, roofline, name).seconds(chunks)[0] for name in ("naive", "fa1"))
    assert PrefillAttention(llama, roofline).seconds(chunks)[0] < fa1 < naive


def test_a_chunk_takes_what_the_sequence_takes_beyond_its_context(llama, roofline):
    naive = OlderPrefill(llama, roofline, "naive")
    first, rest = naive.seconds((Chunk(1000, 0),))[0], naive.seconds((Chunk(3000, 1000),))[0]
    assert first + rest == pytest.approx(naive.seconds((Chunk(4000, 0),))[0])
    assert naive.seconds((Chunk(1000, 0, count=3),))[0] == pytest.approx(3 * first)
