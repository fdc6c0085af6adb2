"""A step through stages: the sum of what they compute, and what passes between them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from simllm.hwmodels.collectives import Collectives, Link, point_to_point_s, tensor_link
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.device import load_device
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.pipeline_step import PipelineStepModel
from simllm.hwmodels.roofline import Efficiency
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.stages import WHOLE, cut_into_stages
from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape

MODEL, DEVICE = "llama-3.1-8b", "h200-sxm"
GRAPHS = CudaGraphSizes(vllm_capture_sizes(128))


def stage_model(model, tp, ends=WHOLE):
    return RooflineStepModel(
        model,
        load_device(DEVICE),
        weight_dtype="bf16",
        activation_dtype="bf16",
        kv_dtype="bf16",
        parallel=ParallelSpec(tp=tp),
        cuda_graph=GRAPHS,
        ends=ends,
    )


@cache
def pipeline(pp: int, tp: int = 1, returns_tokens: bool = False) -> PipelineStepModel:
    stages = [stage_model(stage.model, tp, stage.ends) for stage in cut_into_stages(load_model(MODEL), pp)]
    return PipelineStepModel(
        stages,
        Collectives((), load_device(DEVICE), Efficiency()),
        parallel=ParallelSpec(tp=tp, pp=pp),
        returns_tokens=returns_tokens,
    )


DECODES = StepShape(decodes=(DecodeGroup(1, 64, 64_000, 1_500),), num_padded_tokens=64, num_sampled=64)
PROMPT = StepShape(chunks=(Chunk(2048, 0),), num_padded_tokens=2048, num_sampled=1, uses_cuda_graph=False)


@pytest.mark.parametrize("shape", [DECODES, PROMPT])
@pytest.mark.parametrize("pp", [2, 4, 5])
def test_stages_compute_together_what_one_gpu_computes(shape, pp):
    # The same kernels, each once: what remains is the transfers. The prompt's launches are hidden here.
    staged, whole = pipeline(pp), stage_model(load_model(MODEL), 1)
    between_s = (pp - 1) * staged.handover_s(shape.num_padded_tokens)
    assert staged.predict(shape).duration_s == pytest.approx(
        whole.predict(shape).duration_s + between_s, rel=1e-9
    )


def test_terms_add_up_and_transfers_are_communication():
    staged = pipeline(4, returns_tokens=True)
    cost = staged.predict(DECODES)
    assert sum(cost.terms) == pytest.approx(cost.duration_s)
    communication_s = cost.terms[staged.terms.index("communication")]
    assert communication_s == pytest.approx(3 * staged.handover_s(64) + staged.return_s(64))


def test_a_stage_hands_on_hidden_states_and_residual():
    # 2 tensors of 64 tokens x 4,096 x 2 bytes, each one message.
    link: Link = tensor_link(load_device(DEVICE), Efficiency())
    assert pipeline(2).handover_s(64) == pytest.approx(2 * point_to_point_s(64 * 4096 * 2, link))


def test_ranks_of_a_stage_send_their_shares_and_gather_the_rest():
    one, two = pipeline(2).handover_s(16_384), pipeline(2, tp=2).handover_s(16_384)
    link = tensor_link(load_device(DEVICE), Efficiency())
    share = 16_384 * 4096 * 2 / 2
    assert two == pytest.approx(
        2 * (point_to_point_s(share, link) + link.latency_s + share / link.bytes_per_s)
    )
    assert two > one / 2


def test_the_lm_head_is_paid_once_on_the_last_stage():
    costs = pipeline(4).stage_costs(DECODES)
    place = pipeline(4).terms.index("lm_head")
    assert [cost.terms[place] > 0 for cost in costs] == [False, False, False, True]


def test_tokens_go_back_only_where_the_next_step_waits_for_them():
    assert pipeline(2).return_s(64) == 0.0
    assert pipeline(2, returns_tokens=True).return_s(64) > 0.0
    assert pipeline(2, returns_tokens=True).return_s(0) == 0.0


@pytest.mark.parametrize("pp", [2, 4])
def test_a_line_agrees_with_single_steps(pp):
    staged = pipeline(pp, returns_tokens=True)
    decodes = DecodeGroup(1, 48, 48_000, 1_200)
    line = staged.decode_line(decodes, 100)
    for step in (0, line.num_steps - 1):
        group = DecodeGroup(1, 48, 48_000 + 48 * step, 1_200 + step)
        shape = StepShape(decodes=(group,), num_padded_tokens=48, num_sampled=48)
        assert line.base_s + step * line.slope_s == pytest.approx(staged.predict(shape).duration_s, rel=1e-9)
    assert sum(line.base_terms) == pytest.approx(line.base_s)
    assert sum(line.slope_terms) == pytest.approx(line.slope_s)


def test_launches_of_later_stages_hide_behind_the_stages_before_them():
    # Without graphs a decode of one request waits for launches, but only in the first stage: both stages'
    # launches begin together.
    eager = [replace_graphs(stage) for stage in cut_into_stages(load_model(MODEL), 2)]
    staged = PipelineStepModel(
        eager,
        Collectives((), load_device(DEVICE), Efficiency()),
        parallel=ParallelSpec(pp=2),
        returns_tokens=False,
    )
    shape = replace_shape(DECODES)
    first, last = staged.stage_costs(shape)
    assert last.waiting_s > 0
    saved_s = first.duration_s + last.duration_s + staged.handover_s(64) - staged.predict(shape).duration_s
    assert saved_s == pytest.approx(min(last.waiting_s, first.duration_s + staged.handover_s(64)))


def replace_graphs(stage):
    return RooflineStepModel(
        stage.model,
        load_device(DEVICE),
        weight_dtype="bf16",
        activation_dtype="bf16",
        kv_dtype="bf16",
        cuda_graph=CudaGraphSizes(()),
        ends=stage.ends,
    )


def replace_shape(shape):
    return shape._replace(uses_cuda_graph=False)


def test_models_of_stages_leave_the_model_as_it_was():
    model = load_model(MODEL)
    stage = cut_into_stages(model, 2)[0].model
    assert replace(stage, num_layers=model.num_layers, num_norm_params=model.num_norm_params) == model
