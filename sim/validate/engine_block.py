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
from ..policy.scheduler.vllm_v1 import VllmV1Spec
from ..pool import EngineOverheadConfig, KvConfig, ParallelConfig, PoolConfig
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

# An in-process client (`AsyncLLM`, the engine core in its own process), and its front end's way in and out.
# Source: regression over the requests and tokens of 19 runs of vLLM 0.22.1 on an H200 host, November 2026,
# each matched to the engine's own record of its steps; unlike the engine profile, no command repeats it yet.
IN_PROCESS_CLIENT = EngineOverheadConfig(
    frontend_request_s=0.2e-3,
    frontend_prompt_token_s=0.1e-6,
    frontend_in_s=0.87e-3,
    frontend_hold_s=0.6e-3,
    frontend_out_s=0.42e-3,
    frontend_token_s=20e-6,
    frontend_first_token_s=0.44e-3,
    frontend_last_token_s=0.26e-3,
    frontend_turnaround_s=0.09e-3,
)


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
    kv_offloading_size_gib: float | None = None
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
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
        parallel=ParallelConfig(tp=engine.tensor_parallel_size),
        dtype="bf16" if engine.dtype == "bfloat16" else "fp16",
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=engine.cudagraph_mode == "NONE",
        cudagraph_capture_sizes=engine.cudagraph_capture_sizes or None,
        kv=KvConfig(
            block_size=engine.block_size,
            enable_prefix_caching=engine.enable_prefix_caching,
            num_gpu_blocks=engine.num_gpu_blocks,
        ),
        scheduler=VllmV1Spec(
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            max_model_len=engine.max_model_len,
            enable_chunked_prefill=engine.enable_chunked_prefill,
            async_scheduling=engine.async_scheduling,
        ),
        engine_overhead=IN_PROCESS_CLIENT,
    )


def _unsupported(engine: EngineBlock) -> list[tuple[str, str, object]]:
    """Returns the settings that no comparison is made for yet: name, reason, value."""
    images = "what images cost (front end, encoder) is not modelled yet"
    cases = (
        ("pipeline_parallel_size", "pipeline parallelism is not modelled yet", 1),
        ("data_parallel_size", "data parallelism inside one engine is not modelled yet", 1),
        ("enable_expert_parallel", "expert parallelism is not modelled yet", False),
        ("kv_offloading_size_gib", "moving KV blocks to the CPU and back is not modelled yet", None),
        ("quantization", "the speed of quantised weights is not validated yet", None),
        ("kv_cache_dtype", "attention over a quantised KV cache is not validated yet", "auto"),
        ("mm_processor_cache_gb", images, None),
        ("encoder_compute_budget", images, None),
        ("encoder_cache_size", images, None),
    )
    found = ((name, why, getattr(engine, name), supported) for name, why, supported in cases)
    return [(name, why, value) for name, why, value, supported in found if value != supported]
