"""The settings of DeepSpeed-FastGen's scheduler, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from .engine_spec import EngineSpec, PoolDefaults


class FastGenSpec(EngineSpec):
    """DeepSpeed-FastGen's scheduler settings, by the names of its state manager and with its defaults.

    Source: DeepSpeed deepspeed/inference/v2/ragged/manager_configs.py, DSStateManagerConfig and
    KVCacheConfig (read 2026-11).
    """

    default_block_size: ClassVar[int] = 128
    captures_graphs: ClassVar[bool] = False

    kind: Literal["fastgen"] = "fastgen"
    max_ragged_batch_size: int = Field(768, ge=1, description="Tokens that every step is filled up to.")
    max_ragged_sequence_count: int = Field(512, ge=1, description="Requests in one step.")
    max_tracked_sequences: int = Field(2048, ge=1, description="Requests that may hold KV at once.")
    max_context: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns no prefix caching, which FastGen has not, and its kernels, made from FlashAttention-2."""
        kv = {"block_size": cls.default_block_size, "enable_prefix_caching": False}
        return PoolDefaults(kv=kv, attention_impl="fa2")

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of one step."""
        return self.max_ragged_batch_size

    @property
    def max_num_seqs(self) -> int:
        """Most requests of one step."""
        return min(self.max_ragged_sequence_count, self.max_ragged_batch_size)

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt plus answer, None for what the model allows."""
        return self.max_context

    @property
    def async_scheduling(self) -> bool:
        """False: a step is scheduled from the output of the one before."""
        return False

    @model_validator(mode="after")
    def _tracks_a_whole_step(self) -> FastGenSpec:
        if self.max_tracked_sequences < self.max_num_seqs:
            raise ValueError(
                f"max_tracked_sequences ({self.max_tracked_sequences}) must be at least the requests of a "
                f"step ({self.max_num_seqs})"
            )
        return self
