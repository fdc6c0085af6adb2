"""The settings of static batching, as a scenario gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ....hwmodels.attention_style import AttentionStyle
from .engine_spec import PoolDefaults, ReservingSpec

# CPU time per launch of a model in plain PyTorch: Python modules, the dispatcher, the launch.
# Source: pytorch.org/blog/accelerating-generative-ai-2 (2023-11): Llama-7B in plain PyTorch, batch 1 on an
# A100, starts at 25.5 tokens/s and is "heavily CPU overhead bound": 39.2 ms for the 32 x 48 launches counted
# in `hwmodels/eager_layers.py` and `attention_style.py`.
PYTORCH_LAUNCH_S = 25e-6


class StaticSpec(ReservingSpec):
    """Batches of Hugging Face's `generate`, by its names, behind a queue that forms them.

    Source: transformers generation/utils.py, models/llama/modeling_llama.py; NVIDIA Triton's dynamic batcher
    (max_queue_delay_microseconds, 0 by default); the default batch size is FasterTransformer's best in Orca
    (OSDI 2022) section 6.2.
    """

    default_block_size: ClassVar[int] = 1
    captures_graphs: ClassVar[bool] = False
    is_eager: ClassVar[bool] = True

    kind: Literal["static"] = "static"
    max_batch_size: int = Field(8, ge=1, description="Requests of one batch.")
    max_queue_delay_s: float = Field(
        0.0, ge=0, description="How long the first request of a batch waits for the batch to fill up."
    )
    attn_implementation: Literal["eager", "sdpa"] = Field(
        "sdpa", description="eager: scores and probabilities pass through HBM; sdpa: PyTorch's fused kernels."
    )
    cache: Literal["legacy", "dynamic"] = Field(
        "dynamic",
        description="Keys and values grow by concatenation. legacy (transformers before 4.36): the old cache "
        "stays until the step has ended, which takes as much memory again; dynamic: layer by layer.",
    )
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt plus answer; by default what the model allows."
    )

    @classmethod
    def pool_defaults(cls, settings: Mapping[str, Any]) -> PoolDefaults:
        """Returns the attention of prompts that `attn_implementation` has."""
        is_eager = settings.get("attn_implementation") == "eager"
        return PoolDefaults(
            kv={"block_size": cls.default_block_size}, attention_impl="naive" if is_eager else "fa2"
        )

    @property
    def overhead_defaults(self) -> Mapping[str, float]:
        """Launches from Python."""
        return {"eager_launch_s": PYTORCH_LAUNCH_S}

    @property
    def attention_style(self) -> AttentionStyle:
        """Concatenation, and heads repeated for grouped queries (repeat_kv)."""
        return AttentionStyle(
            is_fused=self.attn_implementation == "sdpa",
            splits_kv=self.attn_implementation == "eager",  # matrix products of cuBLAS fill the device
            copies_cache=True,
            repeats_heads=True,
        )

    @property
    def max_num_batched_tokens(self) -> int:
        """Tokens that activations are sized for: a batch of prompts of 2,048 tokens at most."""
        return self.max_batch_size * min(self.max_model_len or 2048, 2048)

    @property
    def max_num_seqs(self) -> int:
        """Requests of one batch."""
        return self.max_batch_size

    @property
    def async_scheduling(self) -> bool:
        """No: the loop of `generate` waits for each token."""
        return False
