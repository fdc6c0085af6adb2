"""What a step costs on the shipped calibrated profile: measured where measured, else by the roofline."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simllm.hwmodels.calibrated_attention import CalibratedDecode, CalibratedPrefill
from simllm.hwmodels.kernel_times import CalibratedTimes
from simllm.hwmodels.layers import LayerOps
from simllm.hwmodels.link_profile import LinkModel
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.op_point import OpPoint
from simllm.hwmodels.ops import Launches, embedding, gemm, kv_write
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.hwmodels.roofline import Roofline
from simllm.hwmodels.step import Chunk, DecodeGroup

from .calibrated import RATIOS, calibration, h200_profile, seconds, step, step_model, terms_of


def test_products_cost_what_was_measured():
    # 64 tokens through 32 layers of Llama-3.1-8B: QKV, output, gate with up, down.
    terms = terms_of(step(step_model("llama-3.1-8b"), decodes=64, each=1000))
    sizes = {"attention_gemm": [(6144, 4096), (4096, 4096)], "mlp_gemm": [(28_672, 4096), (4096, 14_336)]}
    for term, shapes in sizes.items():
        measured = sum(seconds(OpPoint("gemm", "cublas", "bf16", m=64, n=n, k=k)) for n, k in shapes)
        assert terms[term] == pytest.approx(32 * measured, rel=1e-9)
    lm_head = OpPoint("gemm", "cublas", "bf16", m=64, n=128_256, k=4096)
    assert terms["lm_head"] == pytest.approx(seconds(lm_head), rel=1e-9)


def test_our_own_kernels_run_where_a_scenario_asks_for_them():
    terms = terms_of(step(step_model("llama-3.1-8b", kernels="triton"), decodes=64, each=1000))
    lm_head = OpPoint("gemm", "triton", "bf16", m=64, n=128_256, k=4096)
    assert terms["lm_head"] == pytest.approx(seconds(lm_head), rel=1e-9)


def test_experts_cost_what_was_measured_times_the_engine_s_ratio():
    # 2,048 tokens, each through 8 of 128 experts: all of the term but the two products is bytes.
    products = [
        seconds(OpPoint("grouped_gemm", "triton", "bf16", m=2048, n=n, k=k, num_experts=128, top_k=8))
        for n, k in ((1536, 2048), (2048, 768))
    ]
    moe_s = terms_of(step(step_model("qwen3-30b-a3b"), query=2048))["moe"]
    assert 48 * sum(products) * 1.1 < moe_s < 48 * sum(products) * 1.1 * 1.5


@pytest.mark.parametrize(
    "op",
    [
        embedding(64, 4096, "bf16"),
        kv_write(64, 2048, "bf16", 4096),
        gemm(64, 4096, 4096, "bf16", weight_dtype="int4"),
    ],
    ids=lambda op: f"{op.kind}-{op.dtype}",
)
def test_what_nobody_measured_costs_what_the_roofline_says(op):
    profile = h200_profile()
    roofline = Roofline(profile.device, profile.efficiency)
    launches = [Launches(3, (op,))]
    assert CalibratedTimes(calibration(), roofline).total(launches) == roofline.total(launches)


def test_a_measured_op_has_no_gap_on_top_of_what_was_measured():
    roofline = Roofline(h200_profile().device, h200_profile().efficiency)
    timing = CalibratedTimes(calibration(), roofline).total([Launches(3, (gemm(64, 4096, 4096, "bf16"),))])
    assert timing.busy_s == pytest.approx(
        3 * seconds(OpPoint("gemm", "cublas", "bf16", m=64, n=4096, k=4096))
    )
    assert (timing.gap_s, timing.num_kernels) == (0.0, 3)


@pytest.mark.parametrize("query, context", [(1, 0), (100, 0), (512, 512), (2048, 6144)])
@pytest.mark.parametrize("is_limited", [False, True])
def test_a_lone_chunk_costs_what_the_profile_predicts(query, context, is_limited):
    # 32 layers x the engine's ratio of 0.9, at full clock four fifths of the measured time.
    point = OpPoint(
        "attention_prefill", "sdpa-cudnn", "bf16", batch=1, query_len=query, context_len=context,
        num_q_heads=32, num_kv_heads=8, head_dim=128,
    )  # fmt: skip
    model = step_model("llama-3.1-8b", is_limited=is_limited)
    expected = 32 * 0.9 * (0.8 if is_limited else 1.0) * seconds(point)
    cost = terms_of(step(model, query=query, context=context))
    assert cost["attention_prefill"] == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 700), st.integers(0, 3000)), min_size=2, max_size=8))
def test_chunks_in_one_step_cost_less_than_one_by_one_and_more_than_any_of_them(chunks):
    prefill = prefill_cost("llama-3.1-8b")
    alone = [prefill.seconds((Chunk(query, context),))[0] for query, context in chunks]
    together = prefill.seconds([Chunk(query, context) for query, context in chunks])[0]
    assert max(alone) <= together * (1 + 1e-9)
    assert together < sum(alone)


def test_equal_chunks_are_the_same_as_one_by_one_in_one_step():
    prefill = prefill_cost("llama-3.1-8b")
    one, many = prefill.seconds([Chunk(64, 128, 5)]), prefill.seconds([Chunk(64, 128)] * 5)
    assert one[0] == pytest.approx(many[0], rel=1e-12)


def prefill_cost(model: str, tp: int = 1) -> CalibratedPrefill:
    layers = layers_of(model, tp)
    point = calibration().prefill_point(layers)
    assert point is not None
    times = CalibratedTimes(calibration(), Roofline(h200_profile().device, h200_profile().efficiency))
    return CalibratedPrefill(layers, calibration(), point, times)


def layers_of(model: str, tp: int = 1) -> LayerOps:
    precision = Precision.on(h200_profile().device, weight="bf16", activation="bf16", kv="bf16")
    return LayerOps(load_model(model), ParallelSpec(tp=tp), precision)


def test_latent_attention_multiplies_keys_of_192_dimensions_with_values_of_128():
    # Both are like heads of 160 dimensions; DeepSeek-V3 has 61 layers and, on one of 8 ranks, 16 heads.
    point = OpPoint(
        "attention_prefill", "sdpa-cudnn", "bf16", batch=1, query_len=4096, context_len=0,
        num_q_heads=16, num_kv_heads=16, head_dim=160,
    )  # fmt: skip
    cost_s, _ = prefill_cost("deepseek-v3", tp=8).seconds([Chunk(4096, 0)])
    assert cost_s == pytest.approx(61 * 0.9 * seconds(point), rel=0.01)


def test_latents_in_the_cache_are_expanded_for_every_chunk():
    # 16 heads x (128 + 128) features of 8,192 cached latents of 512; then attention as over a plain cache.
    expansion = 61 * seconds(OpPoint("gemm", "cublas", "bf16", m=8192, n=16 * 256, k=512))
    point = OpPoint(
        "attention_prefill", "sdpa-cudnn", "bf16", batch=1, query_len=2048, context_len=8192,
        num_q_heads=16, num_kv_heads=16, head_dim=160,
    )  # fmt: skip
    cost_s, _ = prefill_cost("deepseek-v3", tp=8).seconds([Chunk(2048, 8192)])
    assert cost_s == pytest.approx(61 * 0.9 * seconds(point) + expansion, rel=0.01)


def decode_costs(count: int, contexts: Sequence[int]) -> tuple[list[float], list[float]]:
    """Returns what decodes of Llama-3.1-8B cost, and what the profile predicts, x 32 layers x 1.2."""
    layers = layers_of("llama-3.1-8b")
    point = calibration().decode_point(layers)
    assert point is not None
    decode = CalibratedDecode(layers, calibration(), point)
    measured = [
        OpPoint(
            "attention_decode", "triton", "bf16", batch=count, query_len=1, context_len=context,
            num_q_heads=32, num_kv_heads=8, head_dim=128,
        )
        for context in contexts
    ]  # fmt: skip
    costs = [decode.seconds([DecodeGroup(1, count, count * context, context)])[0] for context in contexts]
    return costs, [32 * 1.2 * seconds(one) for one in measured]


def test_decodes_cost_what_the_profile_predicts_at_a_knot():
    costs, predicted = decode_costs(64, [1, 32, 1024, 4096])
    assert costs == pytest.approx(predicted, rel=1e-9)


@pytest.mark.parametrize("count, tolerance", [(1, 0.03), (16, 0.005), (64, 0.005), (256, 0.005)])
def test_decodes_of_many_contexts_cost_what_the_profile_predicts_in_all(count, tolerance):
    costs, predicted = decode_costs(count, range(300, 4000, 37))
    assert sum(costs) == pytest.approx(sum(predicted), rel=tolerance)


def test_decodes_beside_prompts_cost_the_engine_s_ratio_more():
    model = step_model("llama-3.1-8b")
    alone, mixed = (terms_of(step(model, query=query, decodes=64, each=1024)) for query in (0, 8))
    assert mixed["attention_decode"] == pytest.approx(1.5 * alone["attention_decode"], rel=1e-12)


def test_a_chunk_within_the_sliding_window_costs_what_it_does_without_one():
    # Mistral-7B has the heads and layers of Llama-3.1-8B, and a window of 4,096 tokens.
    chunks = [Chunk(1500, 1000), Chunk(300, 3000)]
    assert prefill_cost("mistral-7b").seconds(chunks) == prefill_cost("llama-3.1-8b").seconds(chunks)


def test_a_chunk_beyond_the_sliding_window_costs_in_proportion_to_its_tokens():
    with_window, without = prefill_cost("mistral-7b"), prefill_cost("llama-3.1-8b")
    costs = [with_window.seconds([Chunk(tokens, 0)])[0] for tokens in (8192, 16_384, 24_576)]
    assert costs[2] - costs[1] == pytest.approx(costs[1] - costs[0], rel=0.02)
    assert costs[1] < 0.6 * without.seconds([Chunk(16_384, 0)])[0]
    assert with_window.seconds([Chunk(512, 4096)]) == with_window.seconds([Chunk(512, 9000)])


def test_a_filled_sliding_window_stops_costing_more():
    line = step_model("mistral-7b").decode_line(DecodeGroup(1, 8, 8 * 5000, 5000), 1000)  # window 4,096
    assert (line.slope_s, line.num_steps) == (0.0, 1000)


def test_without_a_power_limit_nothing_is_added():
    assert terms_of(step(step_model("llama-3.1-8b"), query=4096))["power_limit"] == 0.0


def test_the_power_limit_adds_to_what_the_matrix_units_bind():
    # A quarter of the products and attention of 4,096 tokens; the lm_head of one row reads its weights.
    terms = terms_of(step(step_model("llama-3.1-8b", is_limited=True), query=4096))
    matrix_s = terms["attention_gemm"] + terms["mlp_gemm"] + terms["attention_prefill"]
    assert terms["power_limit"] == pytest.approx(0.25 * matrix_s, rel=1e-12)


@pytest.mark.parametrize("query, decodes", [(4096, 0), (512, 64), (0, 256)])
def test_with_the_clock_settled_a_step_costs_what_was_measured(query, decodes):
    plain, limited = (
        step(step_model("llama-3.1-8b", is_limited=limited), query=query, decodes=decodes, each=800)
        for limited in (False, True)
    )
    assert limited.duration_s == pytest.approx(plain.duration_s, rel=1e-12)


def test_weights_that_stream_from_memory_lower_no_clock():
    assert terms_of(step(step_model("llama-3.1-8b", is_limited=True), decodes=1))["power_limit"] == 0.0


# The sampler's 10 kernels and the lm_head are in no graph. A layer has 11 kernels: 4 products, 2 norms, KV
# write, rope, SiLU, attention and its reduction; around them stand the embedding and the last norm.
_OUTSIDE, _KERNELS = 11, 32 * 11 + 2 + 11


def test_of_decodes_in_a_graph_the_cpu_launches_only_what_is_in_none():
    cost = step(step_model("llama-3.1-8b"), decodes=64, each=500)
    assert cost.cpu_s == pytest.approx(_OUTSIDE * RATIOS.eager_launch_s)
    assert cost.waiting_s == 0.0


def test_of_a_piecewise_graph_the_cpu_launches_attention_and_the_next_piece():
    # In each of 32 layers the KV write, attention and its reduction, and the next piece.
    cost = step(step_model("llama-3.1-8b"), query=8)
    assert cost.cpu_s == pytest.approx((_OUTSIDE + 32 * 4) * RATIOS.eager_launch_s)


def test_beyond_the_largest_graph_the_cpu_launches_every_kernel():
    cost = step(step_model("llama-3.1-8b"), query=300)
    assert cost.cpu_s == pytest.approx(_KERNELS * RATIOS.eager_launch_s)
    # Products and attention end before the CPU has launched them: the GPU waits.
    assert cost.duration_s == pytest.approx(cost.cpu_s + RATIOS.step_s)
    assert 0.0 < cost.waiting_s < cost.duration_s
    assert cost.bound == "launch"


def test_a_step_that_keeps_the_gpu_busy_waits_for_no_launch():
    cost = step(step_model("llama-3.1-8b"), query=2048)
    assert (cost.waiting_s, cost.bound) == (0.0, "matrix")


def test_experts_take_the_cpu_longer_than_their_launches():
    few, many = (step(step_model("qwen3-30b-a3b"), query=query) for query in (200, 300))
    assert many.cpu_s > 48 * RATIOS.eager_moe_layer_s > few.cpu_s


def test_two_gpus_reduce_at_the_measured_rate_of_their_links():
    # 64 x 4,096 x 2 B = 512 KiB after the embedding and twice a layer in one shot, x 0.7; then logits.
    links = LinkModel(h200_profile().links)
    reduced = links.predict("all_reduce", "one_shot", num_bytes=64 * 4096 * 2, num_gpus=2).time_s
    gathered = links.predict("all_gather", "nccl", num_bytes=64 * 128_256 * 2, num_gpus=2).time_s
    terms = terms_of(step(step_model("llama-3.1-8b", tp=2), decodes=64, each=1000))
    assert terms["communication"] == pytest.approx(65 * 0.7 * reduced + gathered, rel=1e-9)


def test_large_messages_of_two_gpus_go_to_nccl():
    # 2,048 x 4,096 x 2 B = 16 MiB, x 1.1.
    links = LinkModel(h200_profile().links)
    reduced = links.predict("all_reduce", "nccl", num_bytes=2048 * 4096 * 2, num_gpus=2).time_s
    cost = step(step_model("llama-3.1-8b", tp=2), query=2048, sampled=0)
    assert terms_of(cost)["communication"] == pytest.approx(65 * 1.1 * reduced, rel=1e-9)
