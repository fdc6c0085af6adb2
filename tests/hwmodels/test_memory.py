"""The memory budget: a sum that adds up, the blocks that it leaves, and the error when it leaves none."""

from __future__ import annotations

from typing import Any

import pytest

from simllm.errors import InfeasibleError
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.device import DeviceSpec, load_device
from simllm.hwmodels.memory import MemoryBudget, memory_budget
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.precision import Precision
from simllm.units import GIB


def budget_of(
    name: str, device: DeviceSpec, *, weight: str = "bf16", kv: str = "bf16", **changes: Any
) -> MemoryBudget:
    settings: dict[str, Any] = {
        "precision": Precision.on(device, weight=weight, activation="bf16", kv=kv),
        "parallel": ParallelSpec(),
        "block_size": 16,
        "gpu_memory_utilization": 0.9,
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 128,
        "cuda_graph": CudaGraphSizes(vllm_capture_sizes(128)),
    }
    return memory_budget(load_model(name), device, **{**settings, **changes})


# What vLLM 0.22.1 resolved on an H200 with these settings.
VLLM_BLOCKS = [
    ("llama-3.1-8b", ParallelSpec(), "bf16", 55_978),
    ("llama-3.1-8b", ParallelSpec(tp=2), "bf16", 119_811),
    ("llama-3.1-8b", ParallelSpec(), "fp8", 118_617),
    ("qwen3-30b-a3b", ParallelSpec(), "bf16", 46_251),
    ("qwen3-30b-a3b", ParallelSpec(tp=2, ep=2), "bf16", 130_906),
    ("qwen3-32b", ParallelSpec(), "bf16", 16_146),
    ("qwen3-32b", ParallelSpec(tp=2), "bf16", 48_072),
    ("qwen3-32b", ParallelSpec(pp=2), "bf16", 47_997),
]


@pytest.mark.parametrize("name, parallel, dtype, blocks", VLLM_BLOCKS)
def test_blocks_are_within_1_percent_of_what_vllm_finds(h200, name, parallel, dtype, blocks):
    budget = budget_of(name, h200, weight=dtype, kv=dtype, parallel=parallel)
    assert budget.num_gpu_blocks == pytest.approx(blocks, rel=0.01)
    assert not budget.is_measured


def test_the_image_encoder_takes_memory_in_its_profiling_run(h200):
    # Its largest image is 16,384 tokens; vLLM finds 123,187 blocks.
    with_image = budget_of("qwen2.5-vl-7b", h200, max_image_tokens=16_384)
    assert with_image.num_gpu_blocks == pytest.approx(123_187, rel=0.03)
    assert with_image.activation_bytes > budget_of("qwen2.5-vl-7b", h200).activation_bytes


def test_the_sum_is_the_memory_times_the_utilisation(h200):
    budget = budget_of("llama-3.1-8b", h200)
    total = (
        budget.weight_bytes
        + budget.activation_bytes
        + budget.context_bytes
        + budget.cuda_graph_bytes
        + budget.kv_bytes
        + budget.unused_bytes
    )
    assert total == pytest.approx(budget.device_bytes * 0.9)
    assert 0 <= budget.unused_bytes < budget.block_bytes


def test_a_block_holds_both_caches_of_all_layers(h200):
    assert budget_of("llama-3.1-8b", h200).block_bytes == 16 * 131_072
    assert budget_of("llama-3.1-8b", h200, parallel=ParallelSpec(tp=16)).block_bytes == 16 * 131_072 / 8


def test_pipeline_ranks_keep_the_cache_of_their_own_layers(h200):
    assert budget_of("llama-3.1-8b", h200, parallel=ParallelSpec(pp=2)).block_bytes == 16 * 131_072 / 2


def test_a_measured_number_of_blocks_wins(h200):
    budget = budget_of("llama-3.1-8b", h200, num_gpu_blocks=1000)
    assert (budget.num_gpu_blocks, budget.is_measured) == (1000, True)
    assert budget.kv_bytes == 1000 * 16 * 131_072
    assert "1,000 blocks x 16 tokens (measured)" in budget.describe()


def test_the_description_is_a_sum_that_one_can_check(h200):
    lines = budget_of("llama-3.1-8b", h200).describe().splitlines()
    sizes = [float(line.split()[0]) for line in lines[1:]]
    assert lines[0] == "llama-3.1-8b on h200-sxm, per GPU"
    assert lines[-1].endswith("GiB x 0.9")
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.03)


def test_more_tokens_and_more_sequences_leave_fewer_blocks(h200):
    base = budget_of("llama-3.1-8b", h200).num_gpu_blocks
    assert budget_of("llama-3.1-8b", h200, max_num_batched_tokens=16_384).num_gpu_blocks < base
    assert budget_of("llama-3.1-8b", h200, max_num_seqs=1024).num_gpu_blocks < base
    assert budget_of("llama-3.1-8b", h200, cuda_graph=CudaGraphSizes(())).num_gpu_blocks > base


def test_a_model_that_does_not_fit_is_one_line_with_the_sum_of_bytes():
    with pytest.raises(InfeasibleError) as error:
        budget_of("llama-3.1-70b", load_device("a100-80gb"))
    message = str(error.value)
    assert message.startswith("llama-3.1-70b on a100-80gb does not fit: weights 131.4 + activations")
    assert message.endswith("room for KV blocks in 79.4 GiB x 0.9 = 71.5 GiB")
    assert "\n" not in message


def test_it_fits_on_more_gpus():
    budget = budget_of("llama-3.1-70b", load_device("a100-80gb"), parallel=ParallelSpec(tp=4))
    assert budget.weight_bytes == pytest.approx(131.4 * GIB / 4, rel=0.01)
