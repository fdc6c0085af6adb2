"""The settings of SGLang's scheduler, as a scenario gives them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ....hwmodels.attention_style import GATHERED, AttentionStyle
from .engine_spec import ReservingSpec


class SglangSpec(ReservingSpec):
    """SGLang's scheduler settings, by SGLang's names and with its defaults for GPUs of 80 GB and more.

    Source: SGLang python/sglang/srt/server_args.py; environ.py (ratios, read 2026-11).
    """

    default_block_size: ClassVar[int] = 1  # page_size

    kind: Literal["sglang"] = "sglang"
    max_running_requests: int = Field(2048, ge=1, description="Requests that may run at once.")
    chunked_prefill_size: int = Field(
        8192, ge=-1, description="Most prompt tokens of one prefill batch; -1: prompts are never split."
    )
    max_prefill_tokens: int = Field(
        16384, ge=1, description="Prompt tokens after which a prefill batch takes no further request."
    )
    schedule_policy: Literal["fcfs", "lpm", "lof", "shortest-prefill-first"] = Field(
        "fcfs",
        description="Order of the waiting queue: of arrival, longest prefix match, longest output first, "
        "fewest tokens to compute first.",
    )
    schedule_conservativeness: float = Field(
        1.0, gt=0, description="Scales the share of future outputs that admissions leave room for."
    )
    enable_mixed_chunk: bool = Field(False, description="Decodes take part in prefill batches.")
    disable_overlap_schedule: bool = Field(False, description="Schedule a step only when the last has ended.")
    context_length: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )

    @property
    def attention_style(self) -> AttentionStyle:
        """FlashInfer's kernels, for which pages of one token are made."""
        return GATHERED

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of one step."""
        return self.chunked_prefill_size if self.chunked_prefill_size > 0 else self.max_prefill_tokens

    @property
    def max_num_seqs(self) -> int:
        """Most requests that run at once."""
        return self.max_running_requests

    @property
    def max_model_len(self) -> int | None:
        """Longest prompt plus answer, None for what the model allows."""
        return self.context_length

    @property
    def async_scheduling(self) -> bool:
        """Whether a step is scheduled while the one before runs."""
        return not self.disable_overlap_schedule
