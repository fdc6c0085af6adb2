"""The settings of Orca's scheduler, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field

from ....hwmodels.attention_style import AttentionStyle
from .engine_spec import EngineSpec, PoolDefaults


class OrcaSpec(EngineSpec):
    """Orca's scheduler settings, by the paper's names.

    Source: Orca (OSDI 2022) section 4.2, algorithm 1; reservations: PagedAttention (arXiv 2309.06180)
    section 6.1.
    """

    default_block_size: ClassVar[int] = 1
    captures_graphs: ClassVar[bool] = False
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = MappingProxyType(
        {f"orca_{name}": MappingProxyType({"reservation": name}) for name in ("max", "pow2", "oracle")}
    )

    kind: Literal["orca"] = "orca"
    max_batch_size: int = Field(128, ge=1, description="Requests that may run at once (max_bs).")
    reservation: Literal["max", "pow2", "oracle"] = Field(
        "max",
        description="Slots reserved for a request until it ends: max_model_len, the prompt and the next "
        "power of two of the answer, or what it will fill.",
    )
    fuses_attention: bool = Field(
        True,
        description="One launch holds the attention of all requests, thread blocks side by side; else each "
        "request has its own launch.",
    )
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns regions of the reserved length in place of blocks, and kernels that are not Hopper's."""
        layout = {"kind": "contiguous", "reserve": settings.get("reservation", "max")}
        return PoolDefaults(kv={"block_size": cls.default_block_size, "layout": layout}, attention_impl="fa2")

    @property
    def overhead_defaults(self) -> Mapping[str, float]:
        """An engine in C++: launching a kernel takes what the driver takes.

        Source: estimated, cudaLaunchKernel takes 3-5 us of CPU time.
        """
        return {"eager_launch_s": 5e-6}

    @property
    def attention_style(self) -> AttentionStyle:
        """Fused kernels, one thread block per request and head: contexts are not split.

        Source: Orca section 5 (thread blocks of all requests concatenated into one kernel).
        """
        return AttentionStyle(splits_kv=False, is_batched=self.fuses_attention)

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens that activations are sized for: prompts are never split."""
        return max(self.max_batch_size, self.max_model_len or 2048)

    @property
    def max_num_seqs(self) -> int:
        """Most requests that run at once."""
        return self.max_batch_size

    @property
    def async_scheduling(self) -> bool:
        """No: the next iteration is selected when the last one has returned."""
        return False
