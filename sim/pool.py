"""The `pools:` part of a scenario: replicas of one engine with one model on one kind of GPU."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ..hwmodels.attention_algorithms import AttentionImpl
from ..hwmodels.collectives import AllReduceAlgorithm
from ..hwmodels.tensor_traffic import Compression
from ..hwmodels.weight_stream import WeightPlacement
from .policy.autoscaler import AutoscalerSpec
from .policy.kv.spec import KvConfig
from .policy.scheduler import SchedulerSpec, spec_of_kind
from .policy.scheduler.engine_spec import EngineSpec
from .policy.scheduler.vllm_v1 import VllmV1Spec
from .spec import Spec

ActivationDtype = Literal["bf16", "fp16"]
WeightDtype = Literal["bf16", "fp16", "fp8", "int8", "int4"]


def _kernels_tag(value: object) -> str:
    return "by_op" if isinstance(value, dict) else "preset"


# Tagged, so that a wrong name is told what presets there are, and nothing about the other way to choose.
Kernels = Annotated[
    Annotated[Literal["vllm", "triton"], Tag("preset")] | Annotated[dict[str, str], Tag("by_op")],
    Discriminator(_kernels_tag),
]


class CommunicationConfig(Spec):
    """How tensor-parallel ranks exchange activations; by default as the engine does."""

    all_reduce: AllReduceAlgorithm = Field("auto", description="auto: by size, as vLLM chooses.")
    sequence_parallel: bool = Field(
        False, description="Reduce-scatter and all-gather around norms, in place of all-reduces."
    )
    overlap_share: float = Field(0.0, ge=0, le=1, description="Share of the exchanges that computing hides.")
    compression: Compression = Field("none", description="What activations are quantised to for the way.")


class ParallelConfig(Spec):
    """How one replica is spread over GPUs."""

    tp: int = Field(1, ge=1, description="GPUs of tensor parallelism.")
    pp: int = Field(1, ge=1, description="Stages of pipeline parallelism, of tp GPUs each.")
    ep: int = Field(
        1,
        ge=1,
        description="Ranks that share out whole experts, all of tp (vLLM --enable-expert-parallel); 1 if "
        "each has a slice of every expert.",
    )


class ExpertsConfig(Spec):
    """Which experts of a model tokens choose, and what evens out the ranks that share them."""

    skew: float = Field(
        0.0, ge=0, description="The i-th most popular expert has weight i^-skew; 0 is evenly."
    )
    enable_eplb: bool = Field(False, description="Place experts on ranks by their load, not their number.")
    num_redundant_experts: int = Field(0, ge=0, description="Second copies of popular experts, with EPLB.")


class WeightsConfig(Spec):
    """Where weights live. Outside HBM they arrive layer by layer in every step, one layer ahead."""

    placement: WeightPlacement = Field(
        "hbm",
        description="hbm; dram or nvme of the host, streamed over PCIe; zero_sharded over num_shards GPUs, "
        "each layer gathered before it computes (ZeRO-Inference).",
    )
    num_shards: int = Field(
        1, ge=1, description="GPUs that share the weights, each with requests of its own."
    )
    nvme_gb_per_s: float = Field(6.9, gt=0, description="Reads from the drives behind one GPU [GB/s].")


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
    communication: CommunicationConfig = CommunicationConfig()
    experts: ExpertsConfig = ExpertsConfig()
    weights: WeightsConfig = WeightsConfig()
    dtype: ActivationDtype = Field("bf16", description="Activations, and weights unless weight_dtype says.")
    weight_dtype: WeightDtype | None = Field(None, description="Weights, if not as `dtype`.")
    weight_group_size: int | None = Field(
        None,
        ge=8,
        description="Quantised weights per scale and zero point (AWQ, GPTQ); by default 128 for int4, else so"
        " many that scales don't count.",
    )
    accuracy_note: str | None = Field(
        None, description="What quantising the weights does to answers; the summary repeats it."
    )
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
    autoscaler: AutoscalerSpec | None = None
    price_per_gpu_hour: float | None = Field(
        None, gt=0, description="What a GPU costs [USD]; by default the shipped price of its kind, if any."
    )

    @model_validator(mode="after")
    def _begins_within_its_limits(self) -> Self:
        scaler = self.autoscaler
        if scaler is not None and not scaler.min_replicas <= self.replicas <= scaler.max_replicas:
            raise ValueError(
                f"replicas {self.replicas} is outside its autoscaler's {scaler.min_replicas} to "
                f"{scaler.max_replicas}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _engine_defaults(cls, data: Any) -> Any:
        """Fills in vLLM V1 where no engine is named, and what the engine has where nothing is given."""
        if not isinstance(data, dict):
            return data
        scheduler, kv = data.get("scheduler", {}), data.get("kv", {})
        if isinstance(scheduler, dict):
            scheduler = {"kind": "vllm_v1", **scheduler}
            data = {**data, "scheduler": scheduler}
        spec = spec_of_kind(scheduler.get("kind")) if isinstance(scheduler, dict) else type(scheduler)
        if spec is None or not issubclass(spec, EngineSpec):
            return data
        defaults = spec.pool_defaults(dict(scheduler))
        if isinstance(kv, dict):
            data = {**data, "kv": {**defaults.kv, **kv}}
        if defaults.attention_impl is not None:
            data = {"attention_impl": defaults.attention_impl, **data}
        return data
