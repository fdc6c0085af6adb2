"""Step models on the shipped calibrated profile, which tests of laws and of prices share."""

from __future__ import annotations

from functools import cache

from simllm.hwmodels.calibration import Calibration
from simllm.hwmodels.cudagraph import CudaGraphSizes, vllm_capture_sizes
from simllm.hwmodels.engine_profile import EngineOverhead
from simllm.hwmodels.kernel_choice import KernelChoice
from simllm.hwmodels.model_config import load_model
from simllm.hwmodels.op_point import OpPoint
from simllm.hwmodels.parallel import ParallelSpec
from simllm.hwmodels.power import PowerLimit
from simllm.hwmodels.profile import HardwareProfile, load_profile
from simllm.hwmodels.roofline_step import TERMS, RooflineStepModel
from simllm.hwmodels.step import Chunk, DecodeGroup, StepCost, StepShape

# Matrix work takes a quarter longer with the clock settled.
LIMIT = PowerLimit(
    full_clock_ratio=0.8, other_slowdown=0.1, reaction_s=0.05, busy_headroom=0.25, idle_headroom=0.5
)
RATIOS = EngineOverhead(
    step_s=1e-4, decode_ratio=1.2, prefill_ratio=0.9, moe_ratio=1.1, mixed_decode_ratio=1.5,
    small_reduce_ratio=0.7, large_reduce_ratio=1.1,
)  # fmt: skip


@cache
def h200_profile() -> HardwareProfile:
    return load_profile("h200-sxm")


@cache
def calibration(kernels: str = "vllm", is_limited: bool = False) -> Calibration:
    profile = h200_profile()
    assert profile.ops is not None
    ratios = RATIOS.kernel_ratios if kernels == "vllm" else {}
    choice = KernelChoice.named(kernels, ratios)
    return Calibration(profile.ops, choice, LIMIT if is_limited else None, profile.links)


@cache
def step_model(
    model: str,
    tp: int = 1,
    weight_dtype: str = "bf16",
    kv_dtype: str = "bf16",
    max_num_seqs: int = 128,
    kernels: str = "vllm",
    is_limited: bool = False,
) -> RooflineStepModel:
    profile = h200_profile()
    return RooflineStepModel(
        load_model(model),
        profile.device,
        weight_dtype=weight_dtype,
        activation_dtype="bf16",
        kv_dtype=kv_dtype,
        parallel=ParallelSpec(tp=tp),
        cuda_graph=CudaGraphSizes(vllm_capture_sizes(max_num_seqs) if max_num_seqs else ()),
        overhead=RATIOS,
        efficiency=profile.efficiency,
        calibration=calibration(kernels, is_limited),
    )


def step(
    model: RooflineStepModel, *, query: int = 0, context: int = 0, decodes: int = 0, each: int = 1,
    sampled: int | None = None,
) -> StepCost:  # fmt: skip
    """Returns the cost of one chunk and some equal decodes; sampled: rows, by default one a request."""
    num_tokens = query + decodes
    return model.predict(
        StepShape(
            chunks=(Chunk(query, context),) if query else (),
            decodes=(DecodeGroup(1, decodes, decodes * each, each),) if decodes else (),
            num_padded_tokens=model.cuda_graph.pad(num_tokens),
            num_sampled=decodes + bool(query) if sampled is None else sampled,
            uses_cuda_graph=model.cuda_graph.captures(num_tokens),
        )
    )


def terms_of(cost: StepCost) -> dict[str, float]:
    return dict(zip(TERMS, cost.terms, strict=True))


def seconds(point: OpPoint) -> float:
    """What the shipped profile says of one measured operation."""
    return calibration().ops.predict(point).time_s
