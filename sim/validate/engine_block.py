"""The settings that a real engine resolved for itself, and the pool that stands for it.

Every setting is either understood or refused by name: one that changes speed and is passed over in silence
would make the comparison worthless.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ...errors import Problem, ScenarioError
from ..policy.kv.spec import KvConfig
from ..policy.kv.tiers.spec import OwnTierPolicySpec, TierPolicySpec, VllmOffloadingSpec
from ..policy.scheduler.vllm_v1 import VllmV1Spec
from ..pool import ParallelConfig, PoolConfig
from ..problems import problems_of
from ..spec import Spec

# What `nvidia-smi` calls a GPU, and the shipped device that it is.
DEVICES = {
    "NVIDIA H200": "h200-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA H20": "h20",
    "NVIDIA B200": "b200",
    "NVIDIA L40S": "l40s",
}


class EngineBlock(Spec):
    """vLLM's resolved settings, by its names."""

    name: Literal["vllm"]
    version: str
    gpu: str
    driver: str = ""
    torch: str = ""
    model: str
    dtype: Literal["bfloat16", "float16"]
    tensor_parallel_size: int = Field(1, ge=1)
    pipeline_parallel_size: int = Field(1, ge=1)
    data_parallel_size: int = Field(1, ge=1)
    enable_expert_parallel: bool = False
    kv_offloading_size_gib: float | None = Field(None, ge=0)
    quantization: Literal["fp8"] | None = None
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3"] = "auto"
    mm_processor_cache_gb: float | None = None
    encoder_compute_budget: int | None = None
    encoder_cache_size: int | None = None
    block_size: int = Field(16, ge=1)
    num_gpu_blocks: int = Field(ge=2)
    max_num_batched_tokens: int = Field(ge=1)
    max_num_seqs: int = Field(ge=1)
    max_model_len: int = Field(ge=2)
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    async_scheduling: bool = True
    cudagraph_mode: Literal["FULL_AND_PIECEWISE", "NONE"] = "FULL_AND_PIECEWISE"
    cudagraph_capture_sizes: tuple[int, ...] = ()
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    attention_backend: Literal["FLASH_ATTN (FA3)", "FLASH_ATTN"] = "FLASH_ATTN"
    load_format: str = "auto"


def read_engine_block(block: dict[str, Any], path: Path) -> EngineBlock:
    """Returns the engine's settings. Raises: ScenarioError for unknown or unsupported ones, by name."""
    known = {name: value for name, value in block.items() if name in EngineBlock.model_fields}
    problems = [
        Problem(name, "is a setting that is not known here, and may change speed", value)
        for name, value in block.items()
        if name not in known
    ]
    try:
        engine = EngineBlock.model_validate(known)
    except ValidationError as error:
        wrong = problems_of(error, EngineBlock, known)
        problems += [replace(item, path=item.path.removeprefix("$.")) for item in wrong]
    else:
        problems += [Problem(name, what, value) for name, what, value in _unsupported(engine)]
    if problems:
        raise ScenarioError([replace(item, path=f"{path}: engine.{item.path}") for item in problems])
    return engine


def pool_of(engine: EngineBlock, *, device: str | None, path: Path) -> PoolConfig:
    """Returns the pool that stands for the engine; `device` overrides what its GPU's name says.

    Raises: ScenarioError for a GPU that no shipped device is known for.
    """
    device = device or DEVICES.get(engine.gpu)
    if device is None:
        what = "is not a GPU that a shipped device stands for; give --profile"
        raise ScenarioError([Problem(f"{path}: engine.gpu", what, engine.gpu)])
    return PoolConfig(
        model=engine.model,
        device=device,
        parallel=_parallel(engine),
        dtype="bf16" if engine.dtype == "bfloat16" else "fp16",
        weight_dtype=engine.quantization,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=engine.cudagraph_mode == "NONE",
        cudagraph_capture_sizes=engine.cudagraph_capture_sizes or None,
        kv=KvConfig(
            block_size=engine.block_size,
            dtype="auto" if engine.kv_cache_dtype == "auto" else "fp8",
            enable_prefix_caching=engine.enable_prefix_caching,
            num_gpu_blocks=engine.num_gpu_blocks,
            tier_policy=_tier_policy(engine),
        ),
        scheduler=VllmV1Spec(
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            max_model_len=engine.max_model_len,
            enable_chunked_prefill=engine.enable_chunked_prefill,
            async_scheduling=engine.async_scheduling,
        ),
    )


def _tier_policy(engine: EngineBlock) -> TierPolicySpec:
    """Returns vLLM's offloading to the CPU if the engine has it, else the rules of no tiers."""
    size_gib = engine.kv_offloading_size_gib
    return VllmOffloadingSpec(kv_offloading_size_gib=size_gib) if size_gib else OwnTierPolicySpec()


def _parallel(engine: EngineBlock) -> ParallelConfig:
    """Returns the degrees of parallelism; experts are shared out over all TP ranks, if at all."""
    tp = engine.tensor_parallel_size
    ep = tp if engine.enable_expert_parallel else 1
    return ParallelConfig(tp=tp, pp=engine.pipeline_parallel_size, ep=ep)


def _unsupported(engine: EngineBlock) -> list[tuple[str, str, object]]:
    """Returns the settings that no comparison is made for yet: name, reason, value."""
    images = "what images cost (front end, encoder) is not modelled yet"
    cases = (
        ("data_parallel_size", "data parallelism inside one engine is not modelled yet", 1),
        ("mm_processor_cache_gb", images, None),
        ("encoder_compute_budget", images, None),
        ("encoder_cache_size", images, None),
    )
    found = [(name, why, getattr(engine, name), supported) for name, why, supported in cases]
    if engine.kv_offloading_size_gib and not engine.enable_prefix_caching:
        why = "offloading to the CPU is not modelled without prefix caching"
        found.append(("kv_offloading_size_gib", why, engine.kv_offloading_size_gib, None))
    return [(name, why, value) for name, why, value, supported in found if value != supported]
