"""What an engine's style of attention adds, byte by byte and launch by launch, on the datasheet's rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simllm.hwmodels.attention_style import GATHERED, PAGED, AttentionStyle
from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.engine_profile import EngineOverhead
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.profile import load_profile
from simllm.hwmodels.roofline_step import TERMS, RooflineStepModel
from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape

MODEL = load_model("llama-2-7b")
GROUPED = load_model("llama-3.1-8b")
DEVICE = load_profile("a100-80gb").device
STYLES = [
    AttentionStyle(is_fused=False),
    AttentionStyle(splits_kv=False),
    AttentionStyle(is_batched=False),
    AttentionStyle(copies_cache=True),
    AttentionStyle(is_fused=False, copies_cache=True, repeats_heads=True, splits_kv=False, is_batched=False),
]


def make(style: AttentionStyle, *, model=MODEL, is_eager: bool = False, launch_s: float = 0.0):
    return RooflineStepModel(
        model,
        DEVICE,
        weight_dtype="fp16",
        activation_dtype="fp16",
        kv_dtype="fp16",
        cuda_graph=CudaGraphSizes(()),
        overhead=EngineOverhead(step_s=0.0, eager_launch_s=launch_s),
        attention_style=style,
        is_eager=is_eager,
    )


def term(model: RooflineStepModel, shape: StepShape, name: str) -> float:
    return model.predict(shape).terms[TERMS.index(name)]


def decodes(count: int, context: int) -> StepShape:
    return StepShape((), (DecodeGroup(1, count, count * context, context),), count, count, False)


def added_s(style: AttentionStyle, shape: StepShape, model=MODEL) -> float:
    """Seconds that the style adds to the attention of decodes."""
    new, old = (term(make(s, model=model), shape, "attention_decode") for s in (style, PAGED))
    return new - old


def test_a_cache_that_is_copied_is_read_and_written_once_more() -> None:
    # 8 x 1,000 tokens x 524,288 B (32 layers x 2 x 32 heads x 128 x 2 B), twice, at the rate of HBM.
    hbm = make(PAGED).roofline.hbm_bytes_per_s
    assert added_s(AttentionStyle(copies_cache=True), decodes(8, 1000)) == pytest.approx(
        2 * 8000 * 524_288 / hbm
    )


def test_unfused_scores_pass_through_hbm_four_times() -> None:
    # 32 layers x 32 heads x 2 B for each of 8,000 tokens, four times.
    hbm = make(PAGED).roofline.hbm_bytes_per_s
    assert added_s(AttentionStyle(is_fused=False), decodes(8, 1000)) == pytest.approx(
        4 * 8000 * 32 * 32 * 2 / hbm
    )


def test_repeated_heads_cost_grouped_queries_only() -> None:
    style = AttentionStyle(repeats_heads=True)
    assert added_s(style, decodes(8, 1000)) == 0.0
    # Four query heads per KV head: 131,072 B a token, written and read four times.
    hbm = make(PAGED).roofline.hbm_bytes_per_s
    assert added_s(style, decodes(8, 1000), GROUPED) == pytest.approx(8 * 8000 * 131_072 / hbm)
    assert style.num_extra_kernels(is_grouped=False) == 0


def test_without_splits_one_long_context_takes_32_times_as_long() -> None:
    # One CTA per KV head reads it all; split, 32 of them share it, and HBM is what binds.
    long = decodes(1, 100_000)
    whole = term(make(AttentionStyle(splits_kv=False)), long, "attention_decode")
    sm_bytes_per_s = make(PAGED).roofline.l2_bytes_per_s / DEVICE.num_sms
    assert whole == pytest.approx(32 * 100_000 * 2 * 128 * 2 / sm_bytes_per_s)
    assert whole > term(make(PAGED), long, "attention_decode")
    # Many short ones fill the device anyhow.
    assert added_s(AttentionStyle(splits_kv=False), decodes(64, 1000)) == 0.0


def test_one_launch_per_request_leaves_a_gap_for_each() -> None:
    apart, together = make(AttentionStyle(is_batched=False)), make(PAGED)
    shape = StepShape((Chunk(100, 0, 2),), decodes(6, 100).decodes, 206, 8, False)
    # 8 requests: 7 x 2 kernels x 32 layers more.
    gaps = 7 * 2 * 32 * together.roofline.launch_s
    assert term(apart, shape, "launch") - term(together, shape, "launch") == pytest.approx(gaps)


def test_a_plain_pytorch_model_is_bound_by_its_launches() -> None:
    # 32 layers x 48 launches at 25 us and some 15 of the head: 38.8 ms. Measured by PyTorch's authors for
    # Llama-7B on an A100 at batch 1: 25.5 tokens/s, 39.2 ms (pytorch.org/blog/accelerating-generative-ai-2).
    style = AttentionStyle(is_fused=False, copies_cache=True, repeats_heads=True)
    cost = make(style, is_eager=True, launch_s=25e-6).predict(decodes(1, 100))
    assert cost.bound == "launch"
    assert cost.duration_s == pytest.approx(1 / 25.5, rel=0.05)


@pytest.mark.parametrize("style", STYLES)
@given(count=st.integers(1, 64), context=st.integers(1, 5000), spread=st.integers(0, 50_000))
def test_lines_of_decodes_agree_with_single_steps(
    style: AttentionStyle, count: int, context: int, spread: int
) -> None:
    model = make(style)
    total, longest = count * context + spread * (count > 1), context + spread * (count > 1)
    line = model.decode_line(DecodeGroup(1, count, total, longest), 1000)
    for step in {0, line.num_steps // 2, line.num_steps - 1}:
        group = DecodeGroup(1, count, total + step * count, longest + step)
        cost = model.predict(StepShape((), (group,), count, count, False))
        assert line.base_s + step * line.slope_s == pytest.approx(cost.duration_s, rel=1e-9)


def test_gathering_kernels_read_blocks_of_one_token_as_fast_as_large_ones() -> None:
    def attention_s(style: AttentionStyle, block_size: int | None) -> float:
        model = RooflineStepModel(
            MODEL,
            DEVICE,
            weight_dtype="fp16",
            activation_dtype="fp16",
            kv_dtype="fp16",
            attention_style=style,
            block_size=block_size,
        )
        return term(model, decodes(8, 1000), "attention_decode")

    assert attention_s(GATHERED, 1) == attention_s(PAGED, None)
    assert attention_s(PAGED, 1) > 1.5 * attention_s(PAGED, None)
    assert attention_s(AttentionStyle(copies_cache=True), 1) == attention_s(
        AttentionStyle(copies_cache=True), None
    )
