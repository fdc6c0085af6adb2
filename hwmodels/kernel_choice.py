"""Whose kernels run each operation: ours alone, or those that an engine calls.

`triton` is ours for everything. `vllm` is cuBLAS for products and a FlashAttention-3-class kernel for
prefill; for what no library offers alone (paged decoding, experts) it is our kernel times a ratio to the
engine's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ProfileError, nearest_choice
from .op_model import FORM_OF_OP

OURS = "triton"
# Source: vLLM 0.22: torch.nn.functional.linear and scaled products of cuBLAS and CUTLASS, FlashAttention-3 on
# Hopper, of which cuDNN's kernel is the like; vision towers run FlashAttention and torch's convolution.
PRESETS: Mapping[str, Mapping[str, str]] = {
    OURS: {},
    "vllm": {
        "gemm": "cublas",
        "gemm_block_scaled": "cublas",
        # Not measured, and close to the roofline: Marlin (arXiv 2408.11743) section 5.
        "gemm_weight_only": "marlin",
        "patch_embed": "cudnn",
        "attention_prefill": "sdpa-cudnn",
        "attention_vision": "sdpa-flash",
    },
}
IMPLEMENTATIONS = (OURS, "cublas", "cudnn", "marlin", "sdpa-cudnn", "sdpa-flash", "torch")


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Implementations by op, ours where none is named, and how long the engine's kernel takes to that one.

    ratios: time of the engine's own kernel over the measured one's, 1 where it is the measured one.
    """

    implementations: Mapping[str, str] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str, ratios: Mapping[str, float] | None = None) -> KernelChoice:
        """Returns a preset. Raises: ProfileError, with the nearest one, if there is none of that name."""
        if name not in PRESETS:
            nearest = nearest_choice(name, PRESETS)
            hint = f"one of {', '.join(PRESETS)}" if nearest is None else f"did you mean {nearest!r}?"
            raise ProfileError(f"kernels {name!r} are unknown; {hint}")
        return cls(PRESETS[name], ratios or {})

    @classmethod
    def mixed(cls, implementations: Mapping[str, str]) -> KernelChoice:
        """Returns a choice by op, ours for the rest.

        Raises: ProfileError, with the nearest name, for an op or an implementation that there is not.
        """
        for op, implementation in implementations.items():
            for what, name, known in (
                ("operation", op, FORM_OF_OP),
                ("implementation", implementation, IMPLEMENTATIONS),
            ):
                if name not in known:
                    nearest = nearest_choice(name, known)
                    hint = f"one of {', '.join(known)}" if nearest is None else f"did you mean {nearest!r}?"
                    raise ProfileError(f"kernels: {name!r} is no {what}; {hint}")
        return cls(dict(implementations))

    @classmethod
    def parse(cls, text: str, ratios: Mapping[str, float] | None = None) -> KernelChoice:
        """Returns a preset by name, or a choice by op written as `gemm=cublas,attention_prefill=sdpa-flash`.

        ratios: of the engine whose kernels a preset stands for; a choice by op has none.
        Raises: ProfileError, one line.
        """
        if "=" not in text:
            return cls.named(text.strip(), None if text.strip() == OURS else ratios)
        pairs = (part.partition("=") for part in text.split(",") if part.strip())
        return cls.mixed({op.strip(): implementation.strip() for op, _, implementation in pairs})

    def replaced(self, op: str, implementation: str) -> KernelChoice:
        """Returns the choice with another implementation of one op, as it was measured."""
        ratios = {name: ratio for name, ratio in self.ratios.items() if name != op}
        return KernelChoice({**self.implementations, op: implementation}, ratios)

    def implementation(self, op: str) -> str:
        """Returns whose kernel runs an op."""
        return self.implementations.get(op, OURS)

    def stands_in(self, op: str) -> bool:
        """Returns whether the measured kernel stands for the engine's own."""
        return op in self.ratios

    def ratio(self, op: str) -> float:
        """Returns by what to multiply the measured time of that kernel."""
        return self.ratios.get(op, 1.0)
