"""The settings of vLLM V0's scheduler, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from .engine_spec import EngineSpec, PoolDefaults

# Source: vLLM v0.6 vllm/worker/model_runner.py, _BATCH_SIZES_TO_CAPTURE: [1, 2, 4] and 8, 16, ..., 256.
_CAPTURED = (1, 2, 4, *range(8, 257, 8))


class VllmV0Spec(EngineSpec):
    """vLLM V0's scheduler settings, by vLLM's names and with the defaults of v0.6.

    Source: vLLM vllm/config.py and engine/arg_utils.py of v0.6; the time of a step beside its kernels from
    the vLLM blog of 2024-09-05 ("v0.6.0: 2.7x Throughput Improvement"), where scheduling, inputs and outputs
    take 29 % of the time with Llama-3-8B on an H100 and the GPU 38 %, and that of 2025-01-27 ("vLLM V1"),
    by which the GPU takes about 5 ms a step there: 29 / 38 * 5 ms = 3.8 ms, 1 ms of it `schedule_s`. The API
    server's share is no part of it.
    """

    default_step_s: ClassVar[float | None] = 2.8e-3
    graphs_prefills: ClassVar[bool] = False
    searches_beams: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {"vllm_v0_chunked": {"enable_chunked_prefill": True}}
    )

    kind: Literal["vllm_v0"] = "vllm_v0"
    max_num_batched_tokens: int = Field(
        2048,
        ge=1,
        description="Token budget of one step; without chunked prefill it is max_model_len at least.",
    )
    max_num_seqs: int = Field(256, ge=1, description="Requests that may run at once.")
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )
    enable_chunked_prefill: bool = Field(
        False, description="Decodes first, then chunks of prompts; by default a step is prompts or decodes."
    )
    preemption_mode: Literal["auto", "recompute", "swap"] = Field(
        "auto", description="auto: swap requests of several sequences, recompute the others."
    )
    swap_space: float = Field(4.0, ge=0, description="Host memory to swap to, per GPU [GiB].")
    watermark: float = Field(0.01, ge=0, lt=1, description="Share of blocks that admissions leave free.")

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns no prefix caching, which V0 has on demand only, and FlashAttention-2."""
        kv = {"block_size": cls.default_block_size, "enable_prefix_caching": False}
        return PoolDefaults(kv=kv, attention_impl="fa2")

    @property
    def async_scheduling(self) -> bool:
        """False: a step is scheduled from the output of the one before."""
        return False

    @property
    def capture_sizes(self) -> tuple[int, ...]:
        """Captured sizes [requests], up to the first that holds max_num_seqs."""
        largest = next((size for size in _CAPTURED if size >= self.max_num_seqs), _CAPTURED[-1])
        return tuple(size for size in _CAPTURED if size <= largest)

    @model_validator(mode="after")
    def _budget_covers_decodes(self) -> VllmV0Spec:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), so that every running request can decode in every step"
            )
        return self
