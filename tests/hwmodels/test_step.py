"""The step model: terms add up, lines agree with single steps, and nothing gets cheaper by adding to it."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simllm.errors import SimllmError
from simllm.hwmodels.collectives import all_gather_s, all_reduce_s, tensor_link
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.device import load_device
from simllm.hwmodels.engine_profile import EngineOverhead
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.roofline import Efficiency
from simllm.hwmodels.roofline_step import TERMS, RooflineStepModel
from simllm.hwmodels.step import Chunk, DecodeGroup, StepCost, StepShape

# Dense; sliding window; experts; latent attention with compute-bound decodes; one KV head a rank, where the
# longest context binds; fp8; and an engine without CUDA graphs, where launches bind.
CONFIGURATIONS = {
    "dense": {"model": "llama-3.1-8b"},
    "window": {"model": "mistral-7b"},
    "experts": {"model": "qwen3-30b-a3b"},
    "latent": {"model": "deepseek-v3"},
    "tp8": {"model": "llama-3.1-8b", "tp": 8},
    "fp8": {"model": "llama-3.1-8b", "weight_dtype": "fp8", "kv_dtype": "fp8"},
    "eager": {"model": "llama-3.1-8b", "max_num_seqs": 0},
    "parallel": {"model": "falcon-180b", "tp": 8},
}


@cache
def step_model(
    model: str,
    tp: int = 1,
    weight_dtype: str = "bf16",
    kv_dtype: str = "bf16",
    max_num_seqs: int = 128,
    step_s: float = 0.3e-3,
) -> RooflineStepModel:
    return RooflineStepModel(
        load_model(model),
        load_device("h200-sxm"),
        weight_dtype=weight_dtype,
        activation_dtype="bf16",
        kv_dtype=kv_dtype,
        parallel=ParallelSpec(tp=tp),
        cuda_graph=CudaGraphSizes(vllm_capture_sizes(max_num_seqs) if max_num_seqs else ()),
        overhead=EngineOverhead(step_s=step_s),
    )


def decode_step(model: RooflineStepModel, count: int, sum_context: int, max_context: int) -> StepCost:
    return model.predict(
        StepShape(
            decodes=(DecodeGroup(1, count, sum_context, max_context),),
            num_padded_tokens=model.cuda_graph.pad(count),
            num_sampled=count,
            uses_cuda_graph=model.cuda_graph.captures(count),
        )
    )


def mixed_step(
    model: RooflineStepModel, *, query: int, context: int, decodes: int, each: int, sampled: int
) -> StepCost:
    num_tokens = query + decodes
    return model.predict(
        StepShape(
            chunks=(Chunk(query, context),) if query else (),
            decodes=(DecodeGroup(1, decodes, decodes * each, each),) if decodes else (),
            num_padded_tokens=model.cuda_graph.pad(num_tokens),
            num_sampled=sampled,
            uses_cuda_graph=model.cuda_graph.captures(num_tokens),
        )
    )


@st.composite
def decode_states(draw: st.DrawFn) -> tuple[int, int, int]:
    """A number of decodes, the sum of their contexts and the longest one."""
    count = draw(st.integers(1, 400))
    longest = draw(st.integers(1, 20_000))
    return count, draw(st.integers(longest + count - 1, longest * count)), longest


any_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)


@any_configuration
@settings(max_examples=40, deadline=None)
@given(state=decode_states(), max_steps=st.integers(1, 5000), at=st.floats(0, 1))
def test_every_step_of_a_line_costs_what_predict_says(name, state, max_steps, at):
    model = step_model(**CONFIGURATIONS[name])
    count, total, longest = state
    line = model.decode_line(DecodeGroup(1, count, total, longest), max_steps)
    assert 1 <= line.num_steps <= max_steps
    for i in {0, int(at * (line.num_steps - 1)), line.num_steps - 1}:
        cost = decode_step(model, count, total + i * count, longest + i)
        assert line.base_s + i * line.slope_s == pytest.approx(cost.duration_s, rel=1e-12)
        terms = [base + i * slope for base, slope in zip(line.base_terms, line.slope_terms, strict=True)]
        assert terms == pytest.approx(cost.terms, rel=1e-12, abs=1e-15)
        assert line.bound == cost.bound


@any_configuration
def test_lines_are_long(name):
    """10,000 steps of 64 growing decodes take a handful of lines, not thousands."""
    model = step_model(**CONFIGURATIONS[name])
    done = num_lines = 0
    while done < 10_000:
        line = model.decode_line(DecodeGroup(1, 64, 64 * (500 + done), 2000 + done), 10_000 - done)
        done, num_lines = done + line.num_steps, num_lines + 1
    assert num_lines <= 5


@any_configuration
@settings(max_examples=30, deadline=None)
@given(
    query=st.integers(0, 3000), context=st.integers(0, 20_000), decodes=st.integers(0, 300), data=st.data()
)
def test_terms_sum_to_the_duration_and_none_is_negative(name, query, context, decodes, data):
    assume(query + decodes > 0)
    model = step_model(**CONFIGURATIONS[name])
    sampled = data.draw(st.integers(0, decodes + 1))
    cost = mixed_step(model, query=query, context=context, decodes=decodes, each=700, sampled=sampled)
    assert len(cost.terms) == len(model.terms)
    assert sum(cost.terms) == cost.duration_s
    assert min(cost.terms) >= 0.0


@any_configuration
@settings(max_examples=60, deadline=None)
@given(
    query=st.integers(1, 2500),
    context=st.integers(0, 9000),
    decodes=st.integers(1, 280),
    each=st.integers(1, 6000),
    axis=st.sampled_from(["query", "context", "decodes", "each", "sampled"]),
    more=st.integers(1, 300),
)
def test_adding_to_a_step_never_makes_it_cheaper(name, query, context, decodes, each, axis, more):
    model = step_model(**CONFIGURATIONS[name])
    step = {"query": query, "context": context, "decodes": decodes, "each": each, "sampled": decodes}
    before = mixed_step(model, **step).duration_s
    after = mixed_step(model, **{**step, axis: step[axis] + more}).duration_s
    assert after >= before * (1 - 1e-12)


@any_configuration
@settings(max_examples=40, deadline=None)
@given(state=decode_states(), more=st.integers(1, 2000))
def test_a_longer_longest_context_never_makes_a_step_cheaper(name, state, more):
    model = step_model(**CONFIGURATIONS[name])
    count, total, longest = state
    short = decode_step(model, count, total, longest).duration_s
    assert decode_step(model, count, total, longest + more).duration_s >= short * (1 - 1e-12)


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(1, 3000), more=st.integers(1, 500))
def test_more_image_tokens_never_make_a_step_cheaper(tokens, more):
    model = step_model("qwen2.5-vl-7b")
    few, many = (
        model.predict(StepShape((Chunk(4000, 0),), (), 4000, 1, False, num_image_tokens=count))
        for count in (tokens, tokens + more)
    )
    assert many.duration_s >= few.duration_s * (1 - 1e-12)
    assert dict(zip(TERMS, few.terms, strict=True))["vision"] > 0


def terms_of(cost: StepCost) -> dict[str, float]:
    return dict(zip(TERMS, cost.terms, strict=True))


def test_a_dense_decode_streams_its_weights_at_the_reachable_bandwidth():
    # Layers of Llama-3.1-8B: 32 x (41.9 M + 176.2 M) parameters x 2 B = 13.96 GB, at 4.8 TB/s x 0.85.
    terms = terms_of(decode_step(step_model("llama-3.1-8b"), 1, 1, 1))
    streamed = terms["attention_gemm"] + terms["mlp_gemm"]
    assert streamed == pytest.approx(13.96e9 / (4.8e12 * 0.85), rel=0.002)
    assert terms["moe"] == terms["attention_prefill"] == terms["vision"] == terms["communication"] == 0.0


def test_decode_attention_streams_the_cache_at_the_paged_bandwidth():
    # 64 x 1,000 tokens x 131,072 B at 4.8 TB/s x 0.80, and 64 x 32 layers x 16 KiB of Q and O.
    terms = terms_of(decode_step(step_model("llama-3.1-8b"), 64, 64_000, 1000))
    moved = 64_000 * 131_072 + 64 * 32 * 16_384
    assert terms["attention_decode"] == pytest.approx(moved / (4.8e12 * 0.80), rel=1e-9)


def test_the_longest_context_binds_when_one_kv_head_is_left_per_rank():
    # 128 bytes x 2 x 2 of one head in 32 pieces, each through one SM's share of L2.
    model = step_model("llama-3.1-8b", tp=8)
    terms = terms_of(decode_step(model, 1, 16_000, 16_000))
    one_sm = 9.37e12 * 0.65 / 132
    assert terms["attention_decode"] == pytest.approx(32 * 16_000 * 512 / 32 / one_sm, rel=1e-9)


def test_a_filled_sliding_window_stops_costing_more():
    model = step_model("mistral-7b")  # window 4,096
    line = model.decode_line(DecodeGroup(1, 8, 8 * 5000, 5000), 1000)
    assert (line.slope_s, line.num_steps) == (0.0, 1000)


def test_engine_overhead_is_a_term_of_its_own():
    without, with_it = (decode_step(step_model("llama-3.1-8b", step_s=s), 8, 800, 100) for s in (0.0, 1e-3))
    assert with_it.duration_s - without.duration_s == pytest.approx(1e-3)
    assert terms_of(with_it)["engine_overhead"] == 1e-3


def test_a_step_cannot_be_shorter_than_its_eager_launches():
    # 32 layers x (4 GEMMs, 2 norms, KV write, rope, SiLU, attention and its reduction), the embedding, the
    # last norm, the lm_head and 10 kernels of the sampler: 365 launches of 30 us.
    cost = decode_step(step_model("llama-3.1-8b", max_num_seqs=0), 1, 100, 100)
    assert cost.duration_s == pytest.approx(365 * 30e-6 + 0.3e-3)
    assert cost.bound == "launch"


def test_a_captured_step_pays_a_gap_and_a_ramp_per_kernel_only():
    terms = terms_of(decode_step(step_model("llama-3.1-8b"), 1, 100, 100))
    assert terms["launch"] == pytest.approx(365 * (1.3e-6 + 1.0e-6))


def test_prefill_chunks_break_the_graph_at_every_layer():
    """A tiny step waits for the CPU to launch attention between the captured pieces."""
    model = step_model("llama-3.1-8b", tp=8)
    chunk = model.predict(StepShape((Chunk(8, 0),), (), 8, 1))
    decodes = model.predict(StepShape((), (DecodeGroup(1, 8, 80, 10),), 8, 1))
    assert terms_of(chunk)["launch"] > 2 * terms_of(decodes)["launch"]


def test_tensor_parallelism_divides_work_and_adds_communication():
    one, two = (terms_of(decode_step(step_model("llama-3.1-8b", tp=tp), 64, 64_000, 1000)) for tp in (1, 2))
    assert two["mlp_gemm"] == pytest.approx(one["mlp_gemm"] / 2, rel=0.05)
    assert two["attention_decode"] == pytest.approx(one["attention_decode"] / 2, rel=0.01)
    assert one["communication"] == 0.0
    assert two["communication"] > 65 * 5e-6  # 65 all-reduces of at least one hop


def test_parallel_attention_saves_an_all_reduce_per_layer():
    # Falcon-180B has 80 layers, one all-reduce each, and one after the embedding; then the logits' gather.
    model = step_model("falcon-180b", tp=8)
    link = tensor_link(load_device("h200-sxm"), Efficiency())
    reduces = 81 * all_reduce_s(14_848 * 2, 8, link)
    expected = reduces + all_gather_s(65_024 * 2, 8, link)
    assert terms_of(decode_step(model, 1, 1, 1))["communication"] == pytest.approx(expected, rel=1e-9)


def test_one_token_of_a_moe_reads_only_its_experts():
    # 48 layers x 8 experts x 3 x 2,048 x 768 x 2 B = 3.62 GB.
    terms = terms_of(decode_step(step_model("qwen3-30b-a3b"), 1, 1, 1))
    assert terms["moe"] == pytest.approx(3.62e9 / (4.8e12 * 0.85), rel=0.05)
    assert terms["mlp_gemm"] == 0.0


def test_a_stage_s_steps_have_no_stages_of_their_own(llama_8b, h200):
    with pytest.raises(SimllmError, match="cover tensor and expert parallelism"):
        RooflineStepModel(
            llama_8b, h200, weight_dtype="bf16", activation_dtype="bf16", kv_dtype="bf16",
            parallel=ParallelSpec(pp=2),
        )  # fmt: skip


def test_images_need_a_vision_tower():
    with pytest.raises(SimllmError, match="has no vision tower"):
        step_model("llama-3.1-8b").predict(StepShape((Chunk(8, 0),), (), 8, 1, num_image_tokens=5))


def test_a_step_model_remembers_few_sizes():
    model = step_model("llama-3.1-8b")
    costs = {
        mixed_step(model, query=q, context=0, decodes=0, each=1, sampled=1).terms[1]
        for q in range(1025, 1041)
    }
    assert len(costs) == 1  # the linear layers of 1,025..1,040 tokens are priced as 1,040
