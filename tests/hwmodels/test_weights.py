"""Weights of one rank: everything at TP 1, slices and replicas above, and what stays unquantised."""

from __future__ import annotations

import pytest

from simllm.hwmodels.model import ModelSpec
from simllm.hwmodels.model_config import load_model, model_names
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.weights import rank_weight_bytes


def weights(model: ModelSpec, dtype: str = "bf16", **degrees: int) -> float:
    return rank_weight_bytes(model, ParallelSpec(**degrees), weight_dtype=dtype, activation_dtype="bf16")


@pytest.mark.parametrize("name", model_names())
def test_one_rank_holds_the_whole_checkpoint(name):
    model = load_model(name)
    assert weights(model) == pytest.approx(2 * model.num_total_params, rel=1e-9)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "qwen3-30b-a3b", "mixtral-8x7b"])
def test_ranks_share_all_but_the_norms_and_the_router(name):
    model = load_model(name)
    assert weights(model, tp=4) == pytest.approx(weights(model) / 4, rel=2e-3)


def test_ranks_beyond_the_kv_heads_hold_copies_of_them(llama_8b):
    # One KV head a rank: 2 x 128 x 4,096 parameters in 32 layers, where a 16th of all eight is half of that.
    extra = weights(llama_8b, tp=16) - weights(llama_8b) / 16
    assert extra == pytest.approx(32 * 128 * 4096 * 2, rel=0.02)


def test_every_rank_of_mla_holds_the_projections_down(deepseek_v3):
    down = 61 * 7168 * (1536 + 576) * 2
    extra = weights(deepseek_v3, tp=8) - weights(deepseek_v3) / 8
    assert extra == pytest.approx(down * 7 / 8, rel=0.25)  # and replicated routers and norms


def test_experts_may_be_shared_whole_or_in_slices_at_the_same_bytes(qwen_moe):
    assert weights(qwen_moe, tp=2, ep=2) == pytest.approx(weights(qwen_moe, tp=2), rel=1e-9)


def test_quantisation_leaves_embeddings_and_lm_head_alone(llama_8b):
    # 128,256 x 4,096 twice, and norms.
    tables = 2 * 128_256 * 4096
    assert weights(llama_8b, "fp8") == pytest.approx(llama_8b.num_params + tables, rel=1e-4)


def test_the_fullest_stage_of_a_pipeline_counts(llama_8b):
    half = 16 * (llama_8b.num_attention_params + llama_8b.num_dense_mlp_params)
    assert weights(llama_8b, pp=2) == pytest.approx(2 * (half + 128_256 * 4096), rel=1e-4)
