"""What an engine adds to its kernels: the CPU's work per step and per launch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import ProfileError


@dataclass(frozen=True, slots=True)
class EngineOverhead:
    """Constants of one engine version on one host [s], not of the model or the GPU.

    step_s: time per step in which the GPU waits whatever the step holds: preparing inputs, handing out
    sampled tokens, what scheduling does not overlap.
    eager_launch_s: CPU time to launch one kernel outside a CUDA graph, Python and dispatcher included; a
    step cannot be shorter than all of its launches. eager_moe_layer_s: CPU time that an MoE layer takes
    beyond its launches then: tuning tables, buffers, alignment of rows to experts.
    Source: estimated, for vLLM V1 on a 2024 server CPU: 0.2-0.5 ms a step with async scheduling; PyTorch
    dispatches an op in 5-10 us, an engine's custom op or a Triton launch through Python takes 20-60 us.
    """

    step_s: float = 0.3e-3
    eager_launch_s: float = 30e-6
    eager_moe_layer_s: float = 0.4e-3

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ProfileError(f"engine overhead {field.name} must be at least 0 s, got {value!r}")
