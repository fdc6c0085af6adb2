"""Weights outside HBM: a step takes as long as its weights take to arrive, or longer."""

from __future__ import annotations

from functools import cache

import pytest

from simllm.errors import SimllmError
from simllm.hwmodels.collectives import PCIE_LATENCY_S, Collectives, all_gather_s, tensor_link
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.device import load_device
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.roofline import Efficiency
from simllm.hwmodels.roofline_step import RooflineStepModel
from simllm.hwmodels.step import Chunk, DecodeGroup, StepShape
from simllm.hwmodels.weight_stream import StreamedStepModel, WeightsAway

DEVICE = load_device("h200-sxm")
COLLECTIVES = Collectives((), DEVICE, Efficiency())
LAYER_BYTES = 400e6


@cache
def resident() -> RooflineStepModel:
    return RooflineStepModel(
        load_model("llama-3.1-8b"),
        DEVICE,
        weight_dtype="bf16",
        activation_dtype="bf16",
        kv_dtype="bf16",
        cuda_graph=CudaGraphSizes(vllm_capture_sizes(128)),
    )


def decodes(step: int = 0) -> StepShape:
    group = DecodeGroup(1, 64, 640_000 + 64 * step, 10_000 + step)
    return StepShape(decodes=(group,), num_padded_tokens=64, num_sampled=64)


def test_a_layer_arrives_over_pcie_from_memory_and_no_faster_from_a_drive():
    pcie_s = PCIE_LATENCY_S + LAYER_BYTES / DEVICE.pcie_bytes_per_s_per_direction
    assert WeightsAway("dram").arrival_s(LAYER_BYTES, DEVICE, COLLECTIVES, ()) == pytest.approx(pcie_s)
    slow = WeightsAway("nvme", nvme_bytes_per_s=4e9).arrival_s(LAYER_BYTES, DEVICE, COLLECTIVES, ())
    assert slow == pytest.approx(0.1)
    fast = WeightsAway("nvme", nvme_bytes_per_s=1e12).arrival_s(LAYER_BYTES, DEVICE, COLLECTIVES, ())
    assert fast == pytest.approx(pcie_s)


def test_shards_are_gathered_over_the_links_between_gpus():
    found = WeightsAway("zero_sharded", num_shards=8).arrival_s(LAYER_BYTES, DEVICE, COLLECTIVES, ())
    assert found == pytest.approx(all_gather_s(LAYER_BYTES, 8, tensor_link(DEVICE, Efficiency())))


@pytest.mark.parametrize(
    ("away", "layers"),
    [(WeightsAway("dram"), 2), (WeightsAway("nvme"), 2), (WeightsAway("zero_sharded", num_shards=4), 10)],
)
def test_what_stays_in_hbm_are_two_layers_and_a_shard(away: WeightsAway, layers: float):
    assert away.num_resident_layers(32) == layers


def test_few_decodes_wait_for_their_weights_and_long_prompts_do_not():
    streamed = StreamedStepModel(resident(), arrival_s=0.1)
    cost = streamed.predict(decodes())
    assert (cost.duration_s, cost.bound) == (pytest.approx(0.1), "link")
    assert sum(cost.terms) == pytest.approx(0.1)
    prompt = StepShape((Chunk(16_000, 0),), num_padded_tokens=16_000, num_sampled=1, uses_cuda_graph=False)
    assert streamed.predict(prompt) == resident().predict(prompt)


@pytest.mark.parametrize("late_s", [-1.0, 1e-6, 1.0])
def test_a_line_agrees_with_single_steps_on_both_sides_of_the_wait(late_s: float):
    base = resident().predict(decodes()).duration_s
    streamed = StreamedStepModel(resident(), arrival_s=base + late_s)
    line = streamed.decode_line(decodes().decodes[0], 500)
    for step in (0, line.num_steps - 1):
        assert line.base_s + step * line.slope_s == pytest.approx(streamed.predict(decodes(step)).duration_s)
    assert sum(line.base_terms) == pytest.approx(line.base_s)
    assert sum(line.slope_terms) == pytest.approx(line.slope_s, abs=1e-15)


@pytest.mark.parametrize(("placement", "num_shards"), [("dram", 2), ("zero_sharded", 1)])
def test_shards_belong_to_sharded_weights(placement, num_shards):
    with pytest.raises(SimllmError, match="go together"):
        WeightsAway(placement, num_shards=num_shards)
