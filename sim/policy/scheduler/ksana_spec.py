"""The settings of KsanaLLM's scheduler, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from .engine_spec import EngineSpec, PoolDefaults


class KsanaSpec(EngineSpec):
    """KsanaLLM's scheduler settings, by the names of its YAML file and with the defaults of its parser.

    Source: KsanaLLM src/ksana_llm/utils/config/schedule_config_parser.cpp, commit c451219c (read 2026-11).
    """

    captures_graphs: ClassVar[bool] = False  # enable_cuda_graph: false in every example
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {"ksana_split_fuse": {"split_fuse_token_num": 256}, "ksana_recompute": {"preempt_mode": "recompute"}}
    )

    kind: Literal["ksana"] = "ksana"
    max_step_tokens: int = Field(
        4096,
        ge=1,
        description="Token budget of one step, charged with whole sequences: cached prefixes and earlier "
        "chunks count.",
    )
    max_batch_size: int = Field(128, ge=1, description="Requests in one step.")
    max_token_len: int | None = Field(
        None,
        ge=2,
        description="Longest prompt plus answer; by default what the model and max_step_tokens allow.",
    )
    max_waiting_queue_len: int = Field(
        1200, ge=1, description="Requests that may arrive between two steps; the rest is refused."
    )
    waiting_timeout_in_ms: float = Field(
        600_000, gt=0, description="Requests that are not done by then are dropped."
    )
    split_fuse_token_num: int = Field(
        0,
        ge=0,
        description="Most tokens of one prompt in one step; 0 for whole prompts. Switched off for good once "
        "a decode finds no block.",
    )
    launch_block_threshold: float = Field(
        2.0, ge=0, description="Free blocks per request of the step that an admission leaves."
    )
    swapin_block_threshold: float = Field(
        2.0, ge=0, description="Free blocks per decoding request that a swap-in leaves."
    )
    preempt_mode: Literal["swap", "recompute"] = Field(
        "swap", description="What becomes of a decode that finds no block (0 and 1 in KsanaLLM)."
    )
    block_host_memory_factor: float = Field(
        2.0, ge=0, description="Blocks of host memory to swap to, as a multiple of the GPU's."
    )

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns no prefix caching: enable_auto_prefix_cache is false unless it is set."""
        return PoolDefaults(kv={"block_size": cls.default_block_size, "enable_prefix_caching": False})

    @property
    def overhead_defaults(self) -> Mapping[str, float]:
        """An engine in C++: launching a kernel takes what the driver takes.

        Source: estimated, cudaLaunchKernel takes 3-5 us of CPU time.
        """
        return {"eager_launch_s": 5e-6}

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of one step."""
        return self.max_step_tokens

    @property
    def max_num_seqs(self) -> int:
        """Most requests of one step."""
        return min(self.max_batch_size, self.max_step_tokens)

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt plus answer, None for what the model allows."""
        return self.max_token_len

    @property
    def async_scheduling(self) -> bool:
        """False: a step is scheduled from the output of the one before."""
        return False

    @model_validator(mode="after")
    def _longest_request_fits_a_step(self) -> KsanaSpec:
        if self.max_token_len is not None and self.max_token_len > self.max_step_tokens:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_token_len "
                f"({self.max_token_len}), because a step is charged with whole sequences"
            )
        return self
