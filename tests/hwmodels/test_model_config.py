"""Reading config.json files: names, families, and errors that a user can act on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from simllm.errors import SimllmError
from simllm.hwmodels import model_config
from simllm.hwmodels.model import ModelSpec
from simllm.hwmodels.model_config import load_model, model_from_hf_config, model_names

SHIPPED = Path(model_config.__file__).parent / "models"


@pytest.mark.parametrize("name", model_names())
def test_a_shipped_config_reads_the_same_from_the_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text((SHIPPED / f"{name}.json").read_text())
    outside = load_model(tmp_path / "mine")
    assert outside.name == "mine"
    assert replace(outside, name=name) == load_model(name)


@pytest.mark.parametrize("name", model_names())
def test_every_shipped_model_says_where_its_config_comes_from(name: str) -> None:
    assert len(json.loads((SHIPPED / f"{name}.json").read_text())["_source"]) > 20


@pytest.mark.parametrize("given_name", ["qwen3-32b", "Qwen3-32B", "Qwen/Qwen3-32B", "qwen/qwen3-32b"])
def test_a_model_is_found_whatever_the_case_and_by_its_hub_id(given_name: str) -> None:
    assert load_model(given_name).name == "qwen3-32b"


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("llama-3.1-8", "llama-3.1-8b"), ("Qwen/Qwen3-32", "qwen3-32b"), ("deepseekv3", "deepseek-v3")],
)
def test_an_unknown_model_gets_the_nearest_name(wrong: str, nearest: str) -> None:
    with pytest.raises(SimllmError, match=f"^{wrong}: no such model.*did you mean '{nearest}'"):
        load_model(wrong)


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 10,
    "max_position_embeddings": 64,
}


def tiny(**fields: object) -> ModelSpec:
    return model_from_hf_config({**LLAMA, **fields}, "tiny")


def test_an_unknown_architecture_gets_the_nearest_known_one() -> None:
    with pytest.raises(SimllmError, match=r"^tiny: architectures\[0\] is 'Qwen4For.*nearest.*'Qwen3For"):
        tiny(architectures=["Qwen4ForCausalLM"])


def test_a_known_model_type_does_not_excuse_an_unknown_head() -> None:
    with pytest.raises(SimllmError, match="LlamaForSequenceClassification"):
        tiny(architectures=["LlamaForSequenceClassification"], model_type="llama")


def test_a_missing_field_is_named_with_its_file(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({key: value for key, value in LLAMA.items() if key != "vocab_size"}))
    with pytest.raises(SimllmError) as caught:
        load_model(config)
    assert str(caught.value) == f"{config}: vocab_size is missing, which LlamaForCausalLM needs"


@pytest.mark.parametrize("value", [0, -1, "8", 1.5, True])
def test_a_malformed_field_is_named_with_its_value(value: object) -> None:
    with pytest.raises(SimllmError, match=f"^tiny: num_hidden_layers must be .* not {value!r}$"):
        tiny(num_hidden_layers=value)


def test_broken_json_is_reported_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "broken.json"
    config.write_text('{\n"a": }')
    with pytest.raises(SimllmError, match=r"broken.json:2: not valid JSON"):
        load_model(config)


@pytest.mark.parametrize(
    ("rope_scaling", "expected"),
    [
        (None, 64),
        ({"rope_type": "llama3", "factor": 8.0}, 64),
        ({"type": "linear", "factor": 4.0}, 256),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
    ],
)
def test_rotary_scaling_lengthens_the_context_as_vllm_says(rope_scaling: object, expected: int) -> None:
    assert tiny(rope_scaling=rope_scaling).max_model_len == expected


def test_qwen_uses_its_sliding_window_only_when_told_and_mistral_always() -> None:
    window = {"sliding_window": 32, "max_window_layers": 2}
    assert tiny(architectures=["MistralForCausalLM"], **window).sliding_window == 32
    assert tiny(architectures=["Qwen2ForCausalLM"], **window).sliding_window is None
    assert tiny(architectures=["Qwen2ForCausalLM"], **window, use_sliding_window=True).sliding_window == 32


def test_falcon_7b_has_one_kv_head_and_one_norm_a_layer() -> None:
    # 65024 * 4544 tied; a layer: 4544 * (71 + 2) * 64 + 4544^2 + 8 * 4544^2 + 2 * 4544; final norm 2 * 4544.
    fields = {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024}
    config = {"architectures": ["FalconForCausalLM"], **fields, "multi_query": True, "parallel_attn": True}
    model = model_from_hf_config(config, "falcon-7b")
    assert (model.num_kv_heads, model.has_parallel_attention) == (1, True)
    assert model.num_params == 6_921_720_704  # safetensors.total of tiiuae/falcon-7b


def test_deepseek_v2_lite_has_no_query_rank() -> None:
    # Sizes of DeepSeek-V2-Lite, 15.7 B parameters, 2.4 B active: arXiv 2405.04434, appendix B.
    config = json.loads((SHIPPED / "deepseek-v3.json").read_text())
    lite = {
        "architectures": ["DeepseekV2ForCausalLM"], "hidden_size": 2048, "intermediate_size": 10944,
        "num_hidden_layers": 27, "num_attention_heads": 16, "q_lora_rank": None, "vocab_size": 102400,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
        "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    }  # fmt: skip
    model = model_from_hf_config({**config, **lite}, "v2-lite")
    assert (model.num_dense_layers, model.num_moe_layers) == (1, 26)
    assert model.num_params == pytest.approx(15.7e9, rel=0.005)
    assert model.num_active_params == pytest.approx(2.4e9, rel=0.12)


def test_a_nested_language_model_may_be_named_by_its_model_type_alone() -> None:
    text = {key: value for key, value in LLAMA.items() if key != "architectures"} | {"model_type": "qwen3"}
    vision = {
        "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "patch_size": [2, 2], "image_size": [4, 4],
    }  # fmt: skip
    config: dict[str, object] = {"model_type": "internvl", "text_config": text, "vision_config": vision}
    config["tie_word_embeddings"] = True  # holds for a text_config that leaves it out
    model = model_from_hf_config(config, "tiny-vl")
    assert model.architecture == "InternVLForConditionalGeneration"
    assert model.vision is not None
    assert (model.vision.merge, model.vision.out_hidden_size) == (2, 8)
    assert model.num_lm_head_params == 0


def test_a_missing_field_of_a_vision_tower_is_named_with_its_path() -> None:
    config = {"architectures": ["LlavaForConditionalGeneration"], "text_config": LLAMA, "vision_config": {}}
    with pytest.raises(SimllmError, match=r"^x: vision_config.hidden_size is missing"):
        model_from_hf_config(config, "x")


def test_what_is_not_modelled_is_refused() -> None:
    with pytest.raises(SimllmError, match=r"decoder_sparse_step is 2; .* only modelled with 1"):
        tiny(architectures=["Qwen3MoeForCausalLM"], decoder_sparse_step=2)
