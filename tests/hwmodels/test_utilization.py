"""Useful FLOPs and necessary bytes, from sums of counts and from shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.device import load_device
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape
from simllm.hwmodels.utilization import ModelWork, mbu, mfu


def work_of(name: str, *, weight: str = "bf16", kv: str = "bf16") -> ModelWork:
    device = load_device("h200-sxm")
    return ModelWork(load_model(name), Precision.on(device, weight=weight, activation="bf16", kv=kv))


def test_a_token_takes_two_flops_per_parameter_of_the_layers(llama_8b):
    layers = 32 * (llama_8b.num_attention_params + llama_8b.num_dense_mlp_params)
    assert work_of("llama-3.1-8b").flops_per_token == 2 * layers


def test_a_token_of_a_moe_takes_its_own_experts_and_the_router(qwen_moe):
    active = 48 * (
        qwen_moe.num_attention_params + 8 * qwen_moe.num_expert_params + qwen_moe.num_router_params
    )
    assert work_of("qwen3-30b-a3b").flops_per_token == 2 * active


def test_a_pair_takes_four_flops_per_head_dimension_in_every_layer():
    assert work_of("llama-3.1-8b").flops_per_pair == 32 * 4 * 32 * 128


def test_a_sampled_row_takes_the_lm_head():
    assert work_of("llama-3.1-8b").flops_per_sampled == 2 * 4096 * 128_256


def test_a_step_of_a_dense_model_reads_all_but_the_token_table(llama_8b):
    read = 2 * (llama_8b.num_params - 128_256 * 4096)
    assert work_of("llama-3.1-8b").weight_bytes(1) == read == work_of("llama-3.1-8b").weight_bytes(1000)


def test_a_step_of_a_moe_reads_the_experts_it_hits(qwen_moe):
    work = work_of("qwen3-30b-a3b")
    one_expert = 48 * qwen_moe.num_expert_params * 2
    assert work.weight_bytes(1) - work.weight_bytes(0) == pytest.approx(8 * one_expert)
    assert work.weight_bytes(10_000) - work.weight_bytes(0) == pytest.approx(128 * one_expert)


def test_kv_reads_follow_the_contexts():
    assert work_of("llama-3.1-8b").kv_bytes(1000) == 1000 * 131_072
    assert work_of("llama-3.1-8b", kv="fp8").kv_bytes(1000) == 1000 * 65_536


@given(query=st.integers(1, 2000), context=st.integers(0, 5000), decodes=st.integers(1, 64))
def test_a_shape_and_its_counts_give_the_same_work(query, context, decodes):
    work = work_of("llama-3.1-8b")
    shape = StepShape((Chunk(query, context),), (DecodeGroup(1, decodes, decodes * 100, 100),), 4096, decodes)
    pairs = query * context + query * (query + 1) // 2 + decodes * 100
    flops = work.flops(num_tokens=query + decodes, attention_pairs=pairs, num_sampled=decodes)
    contexts = query + context + decodes * 100
    assert work.flops_of(shape) == pytest.approx(flops)
    assert work.hbm_bytes_of(shape) == work.weight_bytes(query + decodes) + work.kv_bytes(contexts)


def test_drafted_tokens_of_a_group_see_their_predecessors():
    # Two requests of 3 new tokens, contexts 10 and 20 with them: pairs 8 + 9 + 10 and 18 + 19 + 20.
    work = work_of("llama-3.1-8b")
    shape = StepShape((), (DecodeGroup(3, 2, 30, 20),), 8, 0)
    assert work.flops_of(shape) == work.flops(num_tokens=6, attention_pairs=84, num_sampled=0)


def test_a_sliding_window_bounds_the_useful_pairs():
    work = work_of("mistral-7b")
    shape = StepShape((), (DecodeGroup(1, 1, 10_000, 10_000),), 1, 0)
    assert work.flops_of(shape) == work.flops(num_tokens=1, attention_pairs=4096, num_sampled=0)


def test_utilisation_is_a_share_of_all_gpus(toy_device):
    assert mfu(1e15, 2.0, device=toy_device, dtype="bf16", num_gpus=2) == 0.25
    assert mbu(1e12, 2.0, device=toy_device, num_gpus=2) == 0.25
