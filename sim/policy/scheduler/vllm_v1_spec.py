"""The settings of vLLM V1's scheduler, as a scenario gives them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from .engine_spec import EngineSpec


class VllmV1Settings(EngineSpec):
    """What vLLM V1's scheduler and those that differ from it in the order of requests only have in common."""

    max_num_batched_tokens: int = Field(8192, ge=1, description="Token budget of one step.")
    max_num_seqs: int = Field(1024, ge=1, description="Requests that may run at once.")
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )
    enable_chunked_prefill: bool = Field(True, description="Split prompts over steps.")
    long_prefill_token_threshold: int = Field(
        0, ge=0, description="Most tokens of one prompt in one step; 0 for no limit."
    )
    scheduler_reserve_full_isl: bool = Field(
        True, description="Admit a request only if its whole current sequence fits into the free blocks."
    )
    watermark: float = Field(
        0.0, ge=0, lt=1, description="Share of blocks that admissions leave free while others run."
    )
    async_scheduling: bool = Field(
        True, description="Schedule a step while the one before runs: two steps in flight."
    )

    @model_validator(mode="after")
    def _budget_covers_decodes(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), so that every running request can decode in every step"
            )
        return self


class VllmV1Spec(VllmV1Settings):
    """vLLM V1's scheduler settings, by vLLM's names and with its defaults for large GPUs."""

    kind: Literal["vllm_v1"] = "vllm_v1"
    policy: Literal["fcfs", "priority"] = Field(
        "fcfs", description="Who comes first: whoever arrived first, or whose priority is the lowest number."
    )
