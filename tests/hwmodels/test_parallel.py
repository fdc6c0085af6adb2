"""How models are cut over ranks, what cannot be cut, and vLLM's rules for remainders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec, rank_shapes, stage_layers


def test_one_rank_holds_the_whole_model(llama_8b):
    shapes = rank_shapes(llama_8b, ParallelSpec())
    assert (shapes.num_q_heads, shapes.num_kv_heads, shapes.kv_replicas) == (32, 8, 1)
    assert (shapes.intermediate_size, shapes.vocab_size, shapes.stage_layers) == (14336, 128256, (32,))


def test_tensor_parallel_ranks_hold_slices(llama_8b):
    shapes = rank_shapes(llama_8b, ParallelSpec(tp=4))
    assert (shapes.num_q_heads, shapes.num_kv_heads) == (8, 2)
    assert (shapes.intermediate_size, shapes.vocab_size) == (3584, 32064)


def test_more_ranks_than_kv_heads_replicate_them(llama_8b):
    shapes = rank_shapes(llama_8b, ParallelSpec(tp=16))
    assert (shapes.num_kv_heads, shapes.kv_replicas) == (1, 2)


def test_every_rank_holds_the_whole_latent_of_mla(deepseek_v3):
    shapes = rank_shapes(deepseek_v3, ParallelSpec(tp=8))
    assert (shapes.num_q_heads, shapes.num_kv_heads, shapes.kv_replicas) == (16, 1, 8)


def test_expert_parallel_ranks_hold_whole_experts_and_others_slices(qwen_moe):
    sliced = rank_shapes(qwen_moe, ParallelSpec(tp=2))
    shared = rank_shapes(qwen_moe, ParallelSpec(tp=2, ep=2))
    assert (sliced.num_experts, sliced.expert_intermediate_size) == (128, 384)
    assert (shared.num_experts, shared.expert_intermediate_size) == (64, 768)


@pytest.mark.parametrize(
    "layers, stages, expected",
    [(32, 4, (8, 8, 8, 8)), (61, 4, (15, 15, 16, 15)), (62, 4, (15, 16, 16, 15)), (63, 4, (16, 16, 16, 15))],
)
def test_the_rest_of_the_layers_goes_before_the_last_stage(layers, stages, expected):
    assert stage_layers(layers, stages) == expected


@given(stages=st.integers(1, 16), layers=st.integers(16, 200))
def test_every_layer_is_on_exactly_one_stage(stages, layers):
    split = stage_layers(layers, stages)
    assert sum(split) == layers
    assert max(split) - min(split) <= 1


@pytest.mark.parametrize(
    "name, parallel, what",
    [
        ("llama-3.1-8b", {"tp": 3}, "32 query heads, which tp=3 does not divide"),
        ("qwen2.5-7b", {"tp": 7}, "4 KV heads, which tp=7 neither divides nor is a multiple of"),
        ("llama-3.1-8b", {"pp": 33}, "32 layers, fewer than pp=33 stages"),
        ("llama-3.1-8b", {"tp": 2, "ep": 2}, "no experts to share out over ep=2"),
        ("mixtral-8x7b", {"tp": 4, "dp": 4, "ep": 16}, "8 experts, which ep=16 does not divide"),
    ],
)
def test_an_illegal_cut_is_one_line_that_says_why(name, parallel, what):
    with pytest.raises(SimllmError, match=what) as error:
        rank_shapes(load_model(name), ParallelSpec(**parallel))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_degrees_below_one_are_refused():
    with pytest.raises(SimllmError, match="tp must be at least 1, got 0"):
        ParallelSpec(tp=0)


def test_experts_are_shared_by_all_tensor_and_data_parallel_ranks():
    assert ParallelSpec(tp=2, dp=4, ep=8).num_gpus == 8
    with pytest.raises(SimllmError, match="ep must be 1 or tp x dp = 8"):
        ParallelSpec(tp=2, dp=4, ep=4)


def test_gpus_multiply():
    assert ParallelSpec(tp=2, pp=3, dp=4, cp=5).num_gpus == 120
