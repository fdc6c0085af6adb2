"""The settings of Hugging Face's Text Generation Inference, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from ....hwmodels.attention_style import GATHERED, PAGED, AttentionStyle
from .engine_spec import PoolDefaults, ReservingSpec
from .static_spec import PYTORCH_LAUNCH_S

TgiVersion = Literal["2023-06", "v2", "v3"]

# Tokens per block: one tensor of tokens, PagedAttention's blocks, FlashInfer's pages of one token.
# Source: TGI v2.4.1 and v3.3.7 server/text_generation_server/models/globals.py (BLOCK_SIZE).
_BLOCK_SIZES: Mapping[object, int] = MappingProxyType({"2023-06": 1, "v2": 16, "v3": 1})
# Source: TGI launcher/src/main.rs of v0.8.2, v2.0.4 and v3.3.7.
_RATIOS: Mapping[str, float] = MappingProxyType({"2023-06": 1.2, "v2": 0.3, "v3": 0.3})
# v2: the default max_input_tokens of 4,095 plus 50. v3: what it falls back to. In 2023-06 nothing limits it.
_PREFILL_TOKENS: Mapping[str, int] = MappingProxyType({"2023-06": 4096, "v2": 4145, "v3": 4096})
OLD_BATCH_TOTAL_TOKENS = 32_000
# Source: TGI v2.0.4 launcher/src/main.rs (cuda_graphs).
_CAPTURE_SIZES = (1, 2, 4, 8, 16, 32)
# The Python server between steps: gRPC, a loop over the requests that detokenises each one's new token.
# Source: estimated, some 30 us for each of a few dozen requests and 1 ms for the call.
_SERVER_S = 2e-3


class TgiSpec(ReservingSpec):
    """TGI's settings, by its names; defaults left open (None) are those of the version.

    Source: TGI launcher/src/main.rs, docs/source/reference/launcher.md.
    """

    graphs_prefills: ClassVar[bool] = False
    default_block_size: ClassVar[int] = 16
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {f"tgi_{name.replace('-', '_')}": MappingProxyType({"version": name}) for name in _RATIOS}
    )

    kind: Literal["tgi"] = "tgi"
    version: TgiVersion = Field(
        "v3",
        description="2023-06: v0.8.2, that of vLLM's first comparison, before paging; v2: paged, prompts "
        "alone; v3: prompts split and beside decodes.",
    )
    max_batch_total_tokens: int | None = Field(
        None, ge=2, description="Prompts and answers of a batch; by default the KV cache, 32,000 in 2023-06."
    )
    max_batch_prefill_tokens: int | None = Field(
        None, ge=1, description="Prompt tokens of one step; without limit in 2023-06."
    )
    waiting_served_ratio: float | None = Field(
        None, ge=0, description="Waiting over running requests at which decodes are paused for prompts."
    )
    max_waiting_tokens: int = Field(
        20, ge=0, description="Decode steps after which even fewer waiting requests are let in."
    )
    max_concurrent_requests: int = Field(
        128, ge=1, description="Requests in the server beyond which further ones are refused."
    )
    max_total_tokens: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns the version's blocks and kernels; prefixes are cached from v3 on."""
        version = settings.get("version", "v3")
        kv = {"block_size": _BLOCK_SIZES.get(version, 1), "enable_prefix_caching": version == "v3"}
        return PoolDefaults(kv=kv, attention_impl="fa1" if version == "2023-06" else "fa2")

    @property
    def prefill_budget(self) -> int | None:
        """Most prompt tokens of one step, None for no limit."""
        if self.max_batch_prefill_tokens is not None:
            return self.max_batch_prefill_tokens
        return None if self.version == "2023-06" else _PREFILL_TOKENS[self.version]

    @property
    def served_ratio(self) -> float:
        """The waiting-served ratio of the version, unless it was given."""
        ratio = self.waiting_served_ratio
        return _RATIOS[self.version] if ratio is None else ratio

    @property
    def capture_sizes(self) -> tuple[int, ...]:
        """No CUDA graphs in 2023-06."""
        return () if self.version == "2023-06" else _CAPTURE_SIZES

    @property
    def overhead_defaults(self) -> Mapping[str, float]:
        """The Python server's part of a step; in 2023-06 it launches the kernels one by one, too."""
        if self.version == "2023-06":
            return {"step_s": _SERVER_S, "eager_launch_s": PYTORCH_LAUNCH_S}
        return {"step_s": _SERVER_S}

    @property
    def attention_style(self) -> AttentionStyle:
        """FlashInfer in v3; in 2023-06 FlashAttention without split KV, over a tensor that each step copies.

        Source: TGI v0.8.2 server/text_generation_server/models/flash_causal_lm.py (generate_token).
        """
        if self.version == "2023-06":
            return AttentionStyle(splits_kv=False, copies_cache=True)
        return GATHERED if self.version == "v3" else PAGED

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens that activations are sized for."""
        return self.max_batch_prefill_tokens or _PREFILL_TOKENS[self.version]

    @property
    def max_num_seqs(self) -> int:
        """Most requests in the server."""
        return self.max_concurrent_requests

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt plus answer, None for what the model allows."""
        return self.max_total_tokens

    @property
    def async_scheduling(self) -> bool:
        """No: the router waits for each step."""
        return False
