"""The settings of TensorRT-LLM's scheduler, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ....hwmodels.attention_style import PAGED, AttentionStyle
from .engine_spec import PoolDefaults, ReservingSpec

CapacityPolicy = Literal["GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"]

# Source: TensorRT-LLM tensorrt_llm/llmapi/llm_args.py (CudaGraphConfig, without padding, up to 128).
# SIMPLIFIED: other sizes are padded to the next one, where TensorRT-LLM launches them one by one unless
# enable_padding is set; effect: 33 to 127 decodes too fast by their launches.
_CAPTURE_SIZES = (*range(1, 33), 64, 128)


class TrtllmSpec(ReservingSpec):
    """TensorRT-LLM's settings, by its names and with its defaults.

    The four switches at the end are those of its engine builder, to show what each one brings.
    Source: TensorRT-LLM llmapi/llm_args.py (SchedulerConfig, KvCacheConfig), builder.py (max_batch_size,
    max_num_tokens), plugin/plugin.py; docs/source/advanced/gpt-attention.md.
    """

    graphs_prefills: ClassVar[bool] = False
    default_block_size: ClassVar[int] = 32  # tokens_per_block
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {
            f"trtllm_{policy.lower()}": MappingProxyType({"capacity_scheduler_policy": policy})
            for policy in ("GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH")
        }
    )

    kind: Literal["trtllm"] = "trtllm"
    capacity_scheduler_policy: CapacityPolicy = Field(
        "GUARANTEED_NO_EVICT",
        description="Who may run: those whose KV fits to the end; whoever fits into the next step, later "
        "ones paused for earlier ones; or new ones only when nobody runs.",
    )
    enable_chunked_prefill: bool = Field(False, description="Split prompts over steps (chunked context).")
    context_chunking_policy: Literal["FIRST_COME_FIRST_SERVED", "EQUAL_PROGRESS"] = Field(
        "FIRST_COME_FIRST_SERVED", description="How prompts that do not all fit share a step."
    )
    max_batch_size: int = Field(2048, ge=1, description="Requests that may run at once.")
    max_num_tokens: int = Field(8192, ge=1, description="Tokens of one step, padding left out.")
    max_seq_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )
    disable_overlap_scheduler: bool = Field(
        False, description="Schedule a step only when the last has ended."
    )
    remove_input_padding: bool = Field(
        True, description="Pack prompts; else all of a step are padded to the longest."
    )
    use_context_fmha: bool = Field(
        True, description="Fused attention of prompts; else scores pass through HBM."
    )
    paged_kv_cache: bool = Field(
        True, description="KV in blocks; else a region of max_seq_len for each request, and no reuse."
    )
    gpt_attention_plugin: bool = Field(
        True,
        description="Attention as one fused operator; else matrix products and softmax over a cache that "
        "each step concatenates, which neither paging nor context FMHA works with.",
    )

    @model_validator(mode="after")
    def _check(self) -> TrtllmSpec:
        if self.max_num_tokens < self.max_batch_size:
            raise ValueError(
                f"max_num_tokens ({self.max_num_tokens}) must be at least max_batch_size "
                f"({self.max_batch_size}), so that every running request can decode in every step"
            )
        if self.enable_chunked_prefill and not (
            self.is_paged and self.has_fmha and self.remove_input_padding
        ):
            raise ValueError(
                "enable_chunked_prefill needs remove_input_padding, use_context_fmha, paged_kv_cache and "
                "gpt_attention_plugin"
            )
        return self

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns what the switches ask for: contiguous regions, attention in plain matrix products."""
        has_plugin = settings.get("gpt_attention_plugin") is not False
        kv: dict[str, object] = {"block_size": cls.default_block_size}
        if not has_plugin or settings.get("paged_kv_cache") is False:
            kv["layout"] = {"kind": "contiguous", "reserve": "max"}
        is_naive = not has_plugin or settings.get("use_context_fmha") is False
        return PoolDefaults(kv=kv, attention_impl="naive" if is_naive else None)

    @property
    def is_paged(self) -> bool:
        """Whether KV lies in blocks."""
        return self.paged_kv_cache and self.gpt_attention_plugin

    @property
    def has_fmha(self) -> bool:
        """Whether prompts' attention is fused."""
        return self.use_context_fmha and self.gpt_attention_plugin

    @property
    def capture_sizes(self) -> tuple[int, ...]:
        """Sizes of CUDA graphs."""
        return _CAPTURE_SIZES

    @property
    def attention_style(self) -> AttentionStyle:
        """Fused, split-KV (multi-block mode) kernels in place; without the plugin neither.

        Source: tensorrt_llm/layers/attention.py (concat of past_key_value, matmul and softmax apart).
        """
        if self.gpt_attention_plugin:
            return PAGED
        return AttentionStyle(is_fused=False, copies_cache=True)

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of one step."""
        return self.max_num_tokens

    @property
    def max_num_seqs(self) -> int:
        """Most requests that run at once."""
        return self.max_batch_size

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt plus answer, None for what the model allows."""
        return self.max_seq_len

    @property
    def async_scheduling(self) -> bool:
        """Whether a step is scheduled while the one before runs."""
        return not self.disable_overlap_scheduler
