"""The `pools:` part of a scenario: replicas of one engine with one model on one kind of GPU."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from ..hwmodels.attention_algorithms import AttentionImpl
from .policy.scheduler import SchedulerSpec
from .policy.scheduler.vllm_v1 import VllmV1Spec
from .spec import Spec

ActivationDtype = Literal["bf16", "fp16"]
WeightDtype = Literal["bf16", "fp16", "fp8", "int8", "int4"]
KvDtype = Literal["auto", "bf16", "fp16", "fp8", "int8"]


def _kernels_tag(value: object) -> str:
    return "by_op" if isinstance(value, dict) else "preset"


# Tagged, so that a wrong name is told what presets there are, and nothing about the other way to choose.
Kernels = Annotated[
    Annotated[Literal["vllm", "triton"], Tag("preset")] | Annotated[dict[str, str], Tag("by_op")],
    Discriminator(_kernels_tag),
]


class ParallelConfig(Spec):
    """How one replica is spread over GPUs."""

    tp: int = Field(1, ge=1, description="GPUs of tensor parallelism.")


class KvConfig(Spec):
    """The KV cache of one replica."""

    block_size: int = Field(16, ge=1, le=1024, description="Tokens per block.")
    dtype: KvDtype = Field("auto", description="auto: as the activations.")
    enable_prefix_caching: bool = Field(True, description="Keep and reuse the blocks of shared prefixes.")
    num_gpu_blocks: int | None = Field(
        None, ge=2, description="Blocks that a real engine reported, instead of those computed from memory."
    )


class EngineOverheadConfig(Spec):
    """What the engine spends beside its kernels [s], in place of what its engine profile says.

    Scheduling is hidden behind the GPU with async_scheduling.
    """

    step_s: float | None = Field(None, ge=0, description="GPU idle in each step: inputs, sampled tokens.")
    schedule_s: float = Field(1.0e-3, ge=0, description="Scheduling, in each step unless it is asynchronous.")
    eager_launch_s: float | None = Field(
        None, ge=0, description="CPU time to launch one kernel outside a CUDA graph."
    )
    eager_moe_layer_s: float | None = Field(
        None, ge=0, description="CPU time of one MoE layer beyond its launches, outside a CUDA graph."
    )
    frontend_request_s: float = Field(
        0.0, ge=0, description="Front end: serving one request, one after the other, in the order of sending."
    )
    frontend_prompt_token_s: float = Field(
        0.0, ge=0, description="Front end: serving one token of a prompt, beside frontend_request_s."
    )
    frontend_in_s: float = Field(0.0, ge=0, description="From the front end to the engine's queue.")
    frontend_hold_s: float = Field(
        0.0, ge=0, description="An idle engine begins so much later while another request is on its way in."
    )
    frontend_out_s: float = Field(0.0, ge=0, description="From a step's end to the clients' tokens.")
    frontend_token_s: float = Field(0.0, ge=0, description="The same, for each token that the step gives.")
    frontend_first_token_s: float = Field(0.0, ge=0, description="The same, for each first token.")
    frontend_last_token_s: float = Field(0.0, ge=0, description="The same, for each last token.")
    frontend_turnaround_s: float = Field(
        0.0, ge=0, description="Until a client of a closed loop sends its next request."
    )


class PoolConfig(Spec):
    """Equal replicas: a model, the GPUs under it, and the engine's settings by vLLM's names."""

    name: str = Field("main", min_length=1)
    replicas: int = Field(1, ge=1)
    model: str = Field(description="A shipped model's name, or the path of a Hugging Face config.json.")
    device: str = Field(description="A shipped device's name, or the path of a device file.")
    parallel: ParallelConfig = ParallelConfig()
    dtype: ActivationDtype = Field("bf16", description="Activations, and weights unless weight_dtype says.")
    weight_dtype: WeightDtype | None = Field(None, description="Weights, if not as `dtype`.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of GPU memory to use.")
    enforce_eager: bool = Field(False, description="Never use CUDA graphs.")
    cudagraph_capture_sizes: tuple[int, ...] | None = Field(
        None, description="Captured sizes [tokens]; by default vLLM's, up to min(2 x max_num_seqs, 512)."
    )
    kv: KvConfig = KvConfig()
    scheduler: SchedulerSpec = VllmV1Spec()
    kernels: Kernels = Field(
        "vllm",
        description="Whose kernels run on a calibrated device: those that vLLM calls, ours, or "
        "{op: implementation} with ours for the rest. A datasheet device has none to choose from.",
    )
    attention_impl: AttentionImpl = Field(
        "fa3",
        description="Algorithm of prompts' attention: naive (scores in HBM), FlashAttention 1, 2 or 3. On "
        "a datasheet device fa2 is as fast as fa3.",
    )
    engine_profile: str | None = Field(
        None,
        description="Constants of an engine version: a shipped name or a file. By default the shipped one "
        "of this engine on this device, else estimates.",
    )
    engine_overhead: EngineOverheadConfig = EngineOverheadConfig()
