"""The step model on the shipped calibrated profile keeps the laws of any step model."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simllm.hwmodels.step import DecodeGroup, StepShape

from .calibrated import step, step_model, terms_of

CONFIGURATIONS = {
    "dense": {"model": "llama-3.1-8b"},
    "window": {"model": "mistral-7b"},
    "experts": {"model": "qwen3-30b-a3b"},
    "latent": {"model": "deepseek-v3", "tp": 8},
    "tp2": {"model": "llama-3.1-8b", "tp": 2},
    "tp4": {"model": "llama-3.1-8b", "tp": 4},
    "fp8": {"model": "llama-3.1-8b", "weight_dtype": "fp8", "kv_dtype": "fp8"},
    "int4": {"model": "llama-3.1-8b", "weight_dtype": "int4"},
    "ours": {"model": "llama-3.1-8b", "kernels": "triton"},
    "eager": {"model": "llama-3.1-8b", "max_num_seqs": 0},
    "limited": {"model": "llama-3.1-8b", "is_limited": True},
}

any_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)


@any_configuration
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 400), mean=st.integers(1, 20_000), odd=st.integers(0, 399),
    max_steps=st.integers(1, 5000), at=st.floats(0, 1),
)  # fmt: skip
def test_every_step_of_a_line_costs_what_predict_says(name, count, mean, odd, max_steps, at):
    model = step_model(**CONFIGURATIONS[name])
    total = count * mean + odd % count
    line = model.decode_line(DecodeGroup(1, count, total, mean + 1), max_steps)
    assert 1 <= line.num_steps <= max_steps
    for i in {0, int(at * (line.num_steps - 1)), line.num_steps - 1}:
        cost = model.predict(
            StepShape(
                decodes=(DecodeGroup(1, count, total + i * count, mean + 1 + i),),
                num_padded_tokens=model.cuda_graph.pad(count),
                num_sampled=count,
                uses_cuda_graph=model.cuda_graph.captures(count),
            )
        )
        assert line.base_s + i * line.slope_s == pytest.approx(cost.duration_s, rel=1e-12)
        terms = [base + i * slope for base, slope in zip(line.base_terms, line.slope_terms, strict=True)]
        assert terms == pytest.approx(cost.terms, rel=1e-12, abs=1e-15)
        assert line.bound == cost.bound


@any_configuration
def test_lines_are_as_long_as_the_way_to_the_next_knot(name):
    """From 2,048 to 12,048 tokens a line ends at every half power of two, and where what binds changes."""
    model = step_model(**CONFIGURATIONS[name])
    done = num_lines = 0
    while done < 10_000:
        line = model.decode_line(DecodeGroup(1, 64, 64 * (2048 + done), 2048 + done), 10_000 - done)
        done, num_lines = done + line.num_steps, num_lines + 1
    assert num_lines <= 6 + 3


@any_configuration
@settings(max_examples=30, deadline=None)
@given(
    query=st.integers(0, 3000), context=st.integers(0, 20_000), decodes=st.integers(0, 300), data=st.data()
)
def test_terms_sum_to_the_duration_and_none_is_negative(name, query, context, decodes, data):
    assume(query + decodes > 0)
    sampled = data.draw(st.integers(0, decodes + 1))
    model = step_model(**CONFIGURATIONS[name])
    cost = step(model, query=query, context=context, decodes=decodes, each=700, sampled=sampled)
    assert sum(cost.terms) == cost.duration_s
    assert min(cost.terms) >= 0.0
    assert 0.0 <= cost.waiting_s <= terms_of(cost)["launch"]


@any_configuration
@settings(max_examples=60, deadline=None)
@given(
    query=st.integers(1, 2500), context=st.integers(0, 9000), decodes=st.integers(1, 280),
    each=st.integers(1, 6000), axis=st.sampled_from(["query", "context", "decodes", "each", "sampled"]),
    more=st.integers(1, 300),
)  # fmt: skip
def test_adding_to_a_step_makes_it_at_most_a_little_cheaper(name, query, context, decodes, each, axis, more):
    """By 2 % at most, where a kernel cuts more work better; the steps of two kernels' rules come on top.

    `communication`: at 512 KiB on 4 GPUs vLLM goes from one-shot to two-shot all-reduces, which move half.
    `moe`: our kernel plans its tiles by the rows of an expert; where it goes over to tiles of twice the rows,
    products get up to 15 % cheaper.
    """
    sizes = {"query": query, "context": context, "decodes": decodes, "each": each, "sampled": decodes}
    model = step_model(**CONFIGURATIONS[name])
    before, after = (step(model, **now) for now in (sizes, {**sizes, axis: sizes[axis] + more}))
    less_s = {term: max(0.0, s - terms_of(after)[term]) for term, s in terms_of(before).items()}
    allowed_s = 0.02 * before.duration_s + less_s["communication"] + less_s["moe"]
    assert less_s["moe"] <= 0.15 * terms_of(before)["moe"]
    assert after.duration_s >= before.duration_s - allowed_s
