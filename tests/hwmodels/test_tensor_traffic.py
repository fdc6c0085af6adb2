"""Exchanges of tensor-parallel ranks: what each way of doing them costs."""

from __future__ import annotations

import pytest

from simllm.errors import SimllmError
from simllm.hwmodels.collectives import (
    Collectives,
    Link,
    one_shot_all_reduce_s,
    ring_all_reduce_bytes,
    ring_all_reduce_s,
    tensor_link,
    tree_all_reduce_s,
    two_shot_all_reduce_s,
)
from simllm.hwmodels.cudagraph import CudaGraphSizes
from simllm.hwmodels.device import load_device
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.roofline import Efficiency
from simllm.hwmodels.roofline_step import TERMS, RooflineStepModel
from simllm.hwmodels.step import Chunk, StepShape
from simllm.hwmodels.tensor_traffic import TensorCommunication

DEVICE = load_device("h200-sxm")
LINK = tensor_link(DEVICE, Efficiency())
PROMPT = StepShape((Chunk(8192, 0),), num_padded_tokens=8192, uses_cuda_graph=False)


def terms(tp: int = 8, **how: object) -> dict[str, float]:
    model = RooflineStepModel(
        load_model("llama-3.1-70b"),
        DEVICE,
        weight_dtype="bf16",
        activation_dtype="bf16",
        kv_dtype="bf16",
        parallel=ParallelSpec(tp=tp),
        cuda_graph=CudaGraphSizes(()),
        communication=TensorCommunication(**how),
    )
    return dict(zip(TERMS, model.predict(PROMPT).terms, strict=True))


def test_a_token_of_a_70b_model_on_8_gpus_moves_4_59_mb_per_gpu():
    # 80 layers x 2 sums x 2 x 7/8 x 8,192 elements of 2 bytes.
    assert 80 * 2 * ring_all_reduce_bytes(8192 * 2, 8) == pytest.approx(4.59e6, rel=1e-3)


@pytest.mark.parametrize("algorithm", ["ring", "tree", "one_shot", "two_shot"])
def test_the_algorithm_sets_the_time_of_every_sum(algorithm: str):
    formula = {
        "ring": ring_all_reduce_s,
        "tree": tree_all_reduce_s,
        "one_shot": one_shot_all_reduce_s,
        "two_shot": two_shot_all_reduce_s,
    }[algorithm]
    expected = (1 + 2 * 80) * formula(8192 * 8192 * 2, 8, LINK)
    assert terms(all_reduce=algorithm)["communication"] == pytest.approx(expected)


def test_small_sums_are_quickest_in_one_shot_and_large_ones_by_shares():
    link = Link(latency_s=5e-6, bytes_per_s=400e9)
    assert one_shot_all_reduce_s(8e3, 8, link) < two_shot_all_reduce_s(8e3, 8, link)
    assert two_shot_all_reduce_s(64e6, 8, link) < one_shot_all_reduce_s(64e6, 8, link)
    # A tree has fewer hops than a ring, and sends a little more.
    assert tree_all_reduce_s(8e3, 8, link) < ring_all_reduce_s(8e3, 8, link)
    assert tree_all_reduce_s(1e9, 8, link) > ring_all_reduce_s(1e9, 8, link)


def test_sequence_parallelism_sends_as_much_and_norms_an_eighth():
    ring, sequence = terms(all_reduce="ring"), terms(sequence_parallel=True)
    assert sequence["communication"] == pytest.approx(ring["communication"], rel=1e-6)
    assert sequence["elementwise"] < ring["elementwise"]


def test_what_computing_hides_is_not_waited_for():
    shown = terms(all_reduce="ring")["communication"]
    assert terms(all_reduce="ring", overlap_share=0.75)["communication"] == pytest.approx(shown / 4)


def test_compressed_activations_take_half_the_way_and_their_quantisation():
    plain, narrow = terms(all_reduce="two_shot"), terms(compression="fp8")
    sent_s = 161 * two_shot_all_reduce_s(8192 * 8192, 8, LINK)
    assert sent_s < narrow["communication"] < plain["communication"]


def test_on_one_gpu_nothing_is_exchanged():
    collectives = Collectives((), DEVICE, Efficiency())
    assert collectives.all_reduce_by_s("tree", 1e6, 1) == 0.0


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"overlap_share": 1.5}, "within 0..1"),
        ({"compression": "fp8", "all_reduce": "ring"}, "compressed sums are two-shot"),
        ({"sequence_parallel": True, "all_reduce": "tree"}, "no all-reduce to choose"),
    ],
)
def test_ways_that_exclude_each_other_are_refused(how: dict[str, object], what: str):
    with pytest.raises(SimllmError, match=what):
        TensorCommunication(**how)
