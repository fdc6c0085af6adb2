"""What a calibrated profile gives a step model: measured kernels, whose of them run, and the power limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .kernel_choice import KernelChoice
from .layers import LayerOps
from .link_profile import LinkEntry
from .op_point import OpPoint
from .op_profile import OpProfile
from .power import PowerLimit


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured kernels of one GPU. power: None if its clock does not fall under load. links: if measured."""

    ops: OpProfile
    kernels: KernelChoice
    power: PowerLimit | None = None
    links: tuple[LinkEntry, ...] = ()

    @property
    def full_clock_ratio(self) -> float:
        """Time of matrix-bound work at full clock over its measured time, with the clock settled."""
        return 1.0 if self.power is None else self.power.full_clock_ratio

    @property
    def slowdown(self) -> float:
        """Seconds that a second of matrix-bound work at full clock takes longer with the clock settled."""
        return 0.0 if self.power is None else self.power.slowdown

    def measured(self, point: OpPoint) -> OpPoint | None:
        """Returns a point with the implementation that runs it, None if that was not measured."""
        implementation = self.kernels.implementation(point.op)
        if not self.ops.has(point.op, implementation, point.dtype):
            return None
        return replace(point, implementation=implementation)

    def prefill_point(self, layers: LayerOps) -> OpPoint | None:
        """Returns the row of a rank's prefill attention without its sizes, None if not measured."""
        shape = layers.prefill_shape()
        return self.measured(
            OpPoint(
                "attention_prefill", "", layers.precision.activation, batch=1,
                num_q_heads=shape.num_q_heads, num_kv_heads=shape.num_kv_heads, head_dim=shape.v_head_dim,
            )
        )  # fmt: skip

    def reads_half(self, layers: LayerOps) -> bool:
        """Whether decodes read an fp8 cache as fast as the 16-bit one, byte for byte.

        So does the kernel of an engine that multiplies in fp8; ours widens first, and is measured as it is.
        """
        stands_in = layers.model.mla is None and self.kernels.stands_in("attention_decode")
        return stands_in and layers.precision.multiplies_kv_in_fp8

    def decode_point(self, layers: LayerOps) -> OpPoint | None:
        """Returns the row of a rank's decode attention without its sizes, None if not measured.

        No kernel that reads scales of groups, or notes scores, was measured.
        """
        compression = layers.precision.kv_compression
        if compression.scale_bytes or compression.keeps_scores:
            return None
        precision = layers.precision
        shapes, dtype = layers.shapes, precision.activation if self.reads_half(layers) else precision.kv
        if (mla := layers.model.mla) is None:
            point = OpPoint(
                "attention_decode", "", dtype, num_q_heads=shapes.num_q_heads,
                num_kv_heads=shapes.num_kv_heads, head_dim=layers.model.head_dim,
            )  # fmt: skip
        else:
            point = OpPoint(
                "mla_decode", "", dtype, num_q_heads=shapes.num_q_heads,
                num_kv_heads=1, head_dim=mla.kv_lora_rank, k=mla.qk_rope_head_dim,
            )  # fmt: skip
        return self.measured(point)
