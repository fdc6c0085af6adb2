"""A model in pipeline stages: nothing is lost between them, and each end lies where vLLM puts it."""

from __future__ import annotations

import pytest

from simllm.errors import SimllmError
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.stages import WHOLE, Ends, cut_into_stages


@pytest.mark.parametrize(("name", "num_stages"), [("llama-3.1-8b", 1), ("qwen3-32b", 3), ("deepseek-v3", 16)])
def test_stages_have_all_layers_between_them(name, num_stages):
    model = load_model(name)
    stages = cut_into_stages(model, num_stages)
    assert sum(stage.model.num_layers for stage in stages) == model.num_layers
    assert sum(stage.model.num_dense_layers for stage in stages) == model.num_dense_layers
    assert sum(stage.model.num_moe_layers for stage in stages) == model.num_moe_layers


def test_embeddings_lie_on_the_first_stage_and_the_head_on_the_last():
    ends = [stage.ends for stage in cut_into_stages(load_model("qwen3-32b"), 3)]
    assert ends == [Ends(True, False), Ends(False, False), Ends(False, True)]


def test_one_stage_is_the_model():
    model = load_model("qwen2.5-vl-7b")
    assert cut_into_stages(model, 1) == ((model, WHOLE),)


def test_the_vision_tower_lies_on_the_first_stage():
    first, last = cut_into_stages(load_model("qwen2.5-vl-7b"), 2)
    assert first.model.vision is not None
    assert last.model.vision is None


def test_dense_layers_of_a_model_with_experts_come_first():
    # DeepSeek-V3: 61 layers, the first 3 dense; over 16 stages the first one has 3 or 4 of them.
    stages = cut_into_stages(load_model("deepseek-v3"), 16)
    assert [stage.model.num_dense_layers for stage in stages[:3]] == [3, 0, 0]


def test_more_stages_than_layers_are_refused():
    with pytest.raises(SimllmError, match="32 layers, fewer than pp=33 stages"):
        cut_into_stages(load_model("llama-3.1-8b"), 33)
