"""Parameters against published counts, bytes of weights and KV cache by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.model import ModelSpec, VisionSpec
from simllm.hwmodels.model_config import load_model, model_from_hf_config, model_names
from simllm.units import DTYPE_BYTES

HUB = "safetensors.total of the Hugging Face API"

PUBLISHED = {
    # name: (parameters of the whole checkpoint, where published)
    "llama-2-7b": (6_738_417_664, HUB),
    "llama-2-13b": (13_015_866_880, HUB),
    "llama-2-70b": (68_976_653_312, HUB),
    "llama-3.1-8b": (8_030_261_248, HUB),
    "llama-3.1-70b": (70_553_706_496, HUB),
    "mistral-7b": (7_241_732_096, HUB),
    "mixtral-8x7b": (46_702_792_704, HUB),
    "yi-34b": (34_388_917_248, HUB),
    "falcon-180b": (179_522_565_120, HUB),
    "qwen-7b-chat": (7_721_324_544, HUB),
    "qwen2.5-7b": (7_615_616_512, HUB),
    "qwen2.5-72b": (72_706_203_648, HUB),
    "llama-3.2-1b": (1_235_814_400, HUB),
    "llama-3.2-3b": (3_212_749_824, HUB),
    "qwen2.5-14b": (14_770_033_664, HUB),
    "qwen2.5-32b": (32_763_876_352, HUB),
    "qwen3-4b": (4_022_468_096, HUB),
    "qwen3-14b": (14_768_307_200, HUB),
    "qwen3-235b-a22b": (235_093_634_560, HUB),
    "qwen3-8b": (8_190_735_360, HUB),
    "qwen3-32b": (32_762_123_264, HUB),
    "qwen3-30b-a3b": (30_532_122_624, HUB),
    "qwen2.5-vl-7b": (8_292_166_656, HUB),
    "qwen3-vl-8b": (8_767_123_696, HUB),
    "llava-1.5-7b": (7_063_427_072, HUB),
    "internvl2.5-8b": (8_075_365_376, HUB),
    "bloom-176b": (176_247_000_000, "BLOOM, arXiv 2211.05100, table 3"),
    "deepseek-v3": (671_000_000_000, "DeepSeek-V3, arXiv 2412.19437, abstract"),
    "gpt-3-175b": (175_000_000_000, "GPT-3, arXiv 2005.14165, table 2.1"),
    "opt-175b": (175_000_000_000, "OPT, arXiv 2205.01068, table 1"),
    "opt-66b": (66_000_000_000, "OPT, arXiv 2205.01068, table 1"),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_those_published(name: str) -> None:
    published, _ = PUBLISHED[name]
    assert load_model(name).num_total_params == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", sorted(name for name, (_, where) in PUBLISHED.items() if where == HUB))
def test_parameters_are_exact_where_the_checkpoint_is_public(name: str) -> None:
    # The Llama-2 checkpoints also hold a table of 64 rotary frequencies a layer, which is no parameter.
    model, (published, _) = load_model(name), PUBLISHED[name]
    rotary = model.num_layers * model.head_dim // 2 if name.startswith("llama-2") else 0
    assert model.num_total_params + rotary == published


def test_opt_13b_by_hand() -> None:
    # embeddings (50272 + 2050) * 5120 = 267,888,640; a layer: 12 * 5120^2 + 9 * 5120 (biases: qkv 3,
    # output 1, MLP 4 + 1) + 4 * 5120 (two LayerNorms) = 314,639,360; times 40; final norm 10,240.
    assert load_model("opt-13b").num_params == 267_888_640 + 40 * 314_639_360 + 10_240


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("mixtral-8x7b", 12.9e9),  # arXiv 2401.04088, section 1
        ("qwen3-30b-a3b", 3.3e9),  # Qwen3 technical report, arXiv 2505.09388, table 2
        ("deepseek-v3", 37e9),  # arXiv 2412.19437, abstract
    ],
)
def test_a_token_of_a_moe_model_meets_few_parameters(name: str, active: float) -> None:
    assert load_model(name).num_active_params == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("llama-2-7b", 524_288),
        ("opt-13b", 819_200),
        ("llama-2-13b", 819_200),
        ("llama-2-70b", 327_680),
        ("llama-3.1-70b", 327_680),
        ("qwen2.5-72b", 327_680),
        ("llama-3.1-8b", 131_072),
        ("mistral-7b", 131_072),
        ("mixtral-8x7b", 131_072),
        ("qwen3-8b", 147_456),
        ("qwen3-32b", 262_144),
        ("qwen3-30b-a3b", 98_304),  # head_dim 128 is given; hidden / heads would be 64
        ("qwen2.5-7b", 57_344),
        ("deepseek-v3", 70_272),  # (512 + 64) * 2 * 61
    ],
)
def test_kv_bytes_of_a_token_in_bf16(name: str, kv_bytes: int) -> None:
    assert load_model(name).kv_bytes_per_token("bf16") == kv_bytes


def test_sixteen_gib_hold_as_many_tokens_of_qwen_2_5_7b_as_vllm_reported() -> None:
    # 16 GiB / 57,344 B = 299,593.1; vLLM rounds down to blocks of 16: 299,584.
    tokens = 16 * 2**30 / load_model("qwen2.5-7b").kv_bytes_per_token("bf16")
    assert tokens // 16 * 16 == 299_584


def test_the_fp8_latent_of_mla_has_656_bytes_a_layer() -> None:
    # 512 in fp8, a fp32 scale for each 128 of them, 64 rotary ones in bf16: 512 + 16 + 128.
    assert load_model("deepseek-v3").kv_bytes_per_token("fp8_ds_mla") == 656 * 61


@pytest.mark.parametrize(("tp", "share"), [(1, 1), (2, 1 / 2), (8, 1 / 8), (16, 1 / 8)])
def test_a_rank_holds_its_share_of_the_kv_heads_and_at_least_one(tp: int, share: float) -> None:
    model = load_model("llama-3.1-70b")
    assert model.kv_bytes_per_token("bf16", tp=tp) == share * model.kv_bytes_per_token("bf16")


def test_tensor_parallelism_does_not_shrink_the_latent_of_mla() -> None:
    model = load_model("deepseek-v3")
    assert model.kv_bytes_per_token("bf16", tp=8) == model.kv_bytes_per_token("bf16")


@given(name=st.sampled_from(model_names()), dtype=st.sampled_from(sorted(DTYPE_BYTES)))
def test_weights_are_parameters_times_bytes(name: str, dtype: str) -> None:
    model = load_model(name)
    assert model.weight_bytes(dtype) == model.num_params * DTYPE_BYTES[dtype]


@given(name=st.sampled_from(model_names()))
def test_the_parts_sum_to_the_whole(name: str) -> None:
    model = load_model(name)
    assert model.num_dense_layers + model.num_moe_layers == model.num_layers
    assert model.has_moe == (model.num_moe_layers > 0)
    assert 0 < model.num_active_params <= model.num_params <= model.num_total_params


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


def test_a_layer_of_a_tiny_llama_by_hand() -> None:
    # qkv and output 4 * 8 * 8 = 256, MLP 3 * 8 * 16 = 384, norms 2 * 8 = 16; twice; norm 8; tables 2 * 80.
    assert tiny().num_params == 2 * (256 + 384 + 16) + 8 + 160
    assert tiny(tie_word_embeddings=True).num_params == tiny().num_params - 80


def test_biases_are_counted() -> None:
    # attention_bias: qkv 3 * 8 and output 8; mlp_bias: gate 16, up 16, down 8; two layers.
    assert tiny(attention_bias=True, mlp_bias=True).num_params == tiny().num_params + 2 * (32 + 40)


def test_a_given_head_dim_wins_over_hidden_by_heads() -> None:
    assert tiny(head_dim=32, num_key_value_heads=1).kv_bytes_per_token("fp8") == 2 * 32 * 2


def test_the_vision_towers_are_counted_apart() -> None:
    # 676,550,144 of Qwen2.5-VL's 8,292,166,656 are the tower: the rest is Qwen2.5-7B.
    model = load_model("qwen2.5-vl-7b")
    assert model.vision is not None
    assert model.vision.num_params == 676_550_144
    assert model.num_params == load_model("qwen2.5-7b").num_params
    assert model.vision.full_attention_layers == (7, 15, 23, 31)


def test_a_small_vision_tower_by_hand() -> None:
    tower = VisionSpec(
        num_layers=2, hidden_size=4, num_heads=1, intermediate_size=8, patch_size=2, is_gated=True, merge=2,
        out_hidden_size=10, merger_hidden_size=16, num_mergers=3, num_small_params=5,
    )  # fmt: skip
    # patches 3 * 2 * 2 * 4 = 48; layers 2 * (4 * 16 + 3 * 4 * 8) = 320;
    # mergers 3 * (16 * 16 + 16 * 10) = 1248.
    assert tower.num_params == 48 + 320 + 1248 + 5
    # A merger of a single matrix: 3 * 16 * 10 = 480.
    assert replace(tower, merger_hidden_size=0).num_params == 48 + 320 + 480 + 5


@pytest.mark.parametrize(
    ("dtype", "hint"), [("fp9", "did you mean 'fp8'"), ("fp8_ds_mla", "models with MLA")]
)
def test_an_unknown_dtype_is_refused(dtype: str, hint: str) -> None:
    with pytest.raises(SimllmError, match=hint):
        tiny().kv_bytes_per_token(dtype)
