"""Prices engine steps from first principles: a `StepModel` over the roofline of a device.

A step is a sum of terms: linear layers at the padded tokens, attention over every context, lm_head and
sampling of the sampled rows, collectives, gaps between launches, and the engine's own overhead.
docs/cost-model.md explains each term and where its constants come from.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import SimllmError
from .attention_cost import DecodeAttention, PrefillAttention
from .cudagraph import CudaGraphSizes
from .device import DeviceSpec
from .engine_profile import EngineOverhead
from .layers import LayerOps
from .model import ModelSpec
from .parallel import ParallelSpec
from .precision import Precision
from .roofline import Efficiency, Roofline
from .step import DecodeGroup, DecodeLine, StepCost, StepShape
from .step_parts import Costliest, HeadPart, LinearPart, StepParts

# Kernels per layer that attention over the KV cache launches: itself and the reduction of split KV.
ATTENTION_KERNELS = 2
# Launches per layer that a piecewise graph, used with prefill chunks, leaves to the CPU: the KV write,
# attention, and the next captured piece.
# Source: vLLM, CompilationConfig.splitting_ops (attention is cut out of the captured pieces)
PIECEWISE_LAUNCHES = 2 + ATTENTION_KERNELS

TERMS = (
    "attention_gemm",
    "mlp_gemm",
    "moe",
    "attention_prefill",
    "attention_decode",
    "lm_head",
    "elementwise",
    "sampling",
    "vision",
    "communication",
    "launch",
    "engine_overhead",
)
_ATTENTION_DECODE, _LAUNCH = TERMS.index("attention_decode"), TERMS.index("launch")

_NO_ATTENTION = (0.0, "none")


class _DecodeBase(NamedTuple):
    """What the number of decodes fixes. before, between, after: terms around the two that contexts move."""

    before: tuple[float, ...]
    between: tuple[float, ...]
    after: tuple[float, ...]
    busy_s: float
    gap_s: float
    cpu_s: float
    costliest: Costliest


class RooflineStepModel:
    """Costs of the steps of one tensor-parallel replica; implements `StepModel`.

    Pure to its callers: what it remembers (an entry per padded size, per number of sampled rows, of
    decodes and of image tokens) only saves work.
    """

    terms: tuple[str, ...] = TERMS

    def __init__(
        self,
        model: ModelSpec,
        device: DeviceSpec,
        *,
        weight_dtype: str,
        activation_dtype: str,
        kv_dtype: str,
        parallel: ParallelSpec | None = None,
        cuda_graph: CudaGraphSizes | None = None,
        overhead: EngineOverhead | None = None,
        efficiency: Efficiency | None = None,
    ) -> None:
        """`cuda_graph`: the sizes that `decode_line` pads to; None if every step launches eagerly.

        Raises: SimllmError for parallelism other than TP, shapes that TP does not divide, or a dtype that
        the device has no units for.
        """
        self.parallel = parallel or ParallelSpec()
        if self.parallel != ParallelSpec(tp=self.parallel.tp):
            raise SimllmError(f"step costs cover tensor parallelism only so far, got {self.parallel}")
        self.model = model
        self.precision = Precision.on(device, weight=weight_dtype, activation=activation_dtype, kv=kv_dtype)
        self.roofline = Roofline(device, efficiency or Efficiency())
        self.overhead = overhead or EngineOverhead()
        self.cuda_graph = cuda_graph or CudaGraphSizes(())
        layers = LayerOps(model, self.parallel, self.precision)
        self._parts = StepParts(layers, self.roofline, tp=self.parallel.tp)
        self._prefill = PrefillAttention(layers, self.roofline)
        self._decode = DecodeAttention(layers, self.roofline)
        self._attention_kernels = ATTENTION_KERNELS * model.num_layers
        self._piecewise_s = PIECEWISE_LAUNCHES * model.num_layers * self.overhead.eager_launch_s
        self._eager_moe_s = self.overhead.eager_moe_layer_s * model.num_moe_layers
        self._decode_bases: dict[int, _DecodeBase] = {}

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step; `num_padded_tokens` and `uses_cuda_graph` are taken as given.

        SIMPLIFIED: `dp_loads` and `ep_imbalance` are not read; effect: none, as DP and EP are refused.
        """
        linear, head = self._parts.linear(shape.num_padded_tokens), self._parts.head(shape.num_sampled)
        vision = self._parts.vision(shape.num_image_tokens)
        prefill = self._prefill.seconds(shape.chunks) if shape.chunks else _NO_ATTENTION
        decode = self._decode.seconds(shape.decodes) if shape.decodes else _NO_ATTENTION
        num_kernels = linear.num_kernels + head.num_kernels + vision.num_kernels + self._attention_kernels
        cpu_s = self._cpu_s(num_kernels, head.num_kernels + vision.num_kernels, shape.uses_cuda_graph)
        if shape.chunks and shape.uses_cuda_graph:
            cpu_s += self._piecewise_s
        launch_s = num_kernels * self.roofline.launch_s
        waiting_s = cpu_s - (linear.busy_s + head.busy_s + vision.busy_s + prefill[0] + decode[0])
        if waiting_s > launch_s:
            launch_s, bound = waiting_s, "launch"
        else:
            gaps = (launch_s, "launch")
            bound = max(self._costliest(linear, head, gaps), vision.costliest, prefill, decode)[1]
        terms = self._terms(linear, head, vision.busy_s, prefill[0], decode[0], launch_s)
        return StepCost(sum(terms), terms, bound)

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the cost of the coming decode steps, up to the next knot.

        Knots: the longest context stops or starts to bind attention, a sliding window fills up, attention
        becomes the costliest term (`bound` changes), the GPU catches up with eager launches.
        """
        _, num_decodes, sum_context, max_context = decodes
        base = self._decode_bases.get(num_decodes) or self._make_decode_base(num_decodes)
        attention_s, slope_s, num_steps, bound = self._decode.line(
            num_decodes, sum_context, max_context, max_steps
        )
        launch_s, launch_slope_s, headroom_s = base.gap_s, 0.0, -1.0
        waiting_s = base.cpu_s - (base.busy_s + attention_s)
        if waiting_s > base.gap_s:
            launch_s, launch_slope_s, bound = waiting_s, -slope_s, "launch"
            headroom_s = waiting_s - base.gap_s
        elif base.costliest[0] >= attention_s:
            headroom_s, bound = base.costliest[0] - attention_s, base.costliest[1]
        if headroom_s >= 0.0 and slope_s:
            num_steps = min(num_steps, int(headroom_s / slope_s) + 1)
        terms = (*base.before, attention_s, *base.between, launch_s, *base.after)
        slopes = (0.0, 0.0, 0.0, 0.0, slope_s, 0.0, 0.0, 0.0, 0.0, 0.0, launch_slope_s, 0.0)
        return DecodeLine(sum(terms), slope_s + launch_slope_s, num_steps, terms, slopes, bound)

    def _make_decode_base(self, num_decodes: int) -> _DecodeBase:
        linear = self._parts.linear(self.cuda_graph.pad(num_decodes))
        head = self._parts.head(num_decodes)
        num_kernels = linear.num_kernels + head.num_kernels + self._attention_kernels
        gap_s = num_kernels * self.roofline.launch_s
        terms = self._terms(linear, head, 0.0, 0.0, 0.0, 0.0)
        base = self._decode_bases[num_decodes] = _DecodeBase(
            before=terms[:_ATTENTION_DECODE],
            between=terms[_ATTENTION_DECODE + 1 : _LAUNCH],
            after=terms[_LAUNCH + 1 :],
            busy_s=linear.busy_s + head.busy_s,
            gap_s=gap_s,
            cpu_s=self._cpu_s(num_kernels, head.num_kernels, self.cuda_graph.captures(num_decodes)),
            costliest=self._costliest(linear, head, (gap_s, "launch")),
        )
        return base

    def _cpu_s(self, num_kernels: int, num_outside: int, uses_cuda_graph: bool) -> float:
        """Returns the CPU time of all launches; `num_outside` kernels are never captured."""
        if uses_cuda_graph:
            return num_outside * self.overhead.eager_launch_s
        return num_kernels * self.overhead.eager_launch_s + self._eager_moe_s

    def _costliest(self, linear: LinearPart, head: HeadPart, gaps: Costliest) -> Costliest:
        return max(linear.costliest, head.costliest, gaps, (self.overhead.step_s, "engine"))

    def _terms(
        self,
        linear: LinearPart,
        head: HeadPart,
        vision_s: float,
        prefill_s: float,
        decode_s: float,
        launch_s: float,
    ) -> tuple[float, ...]:
        """Returns the terms in the order of `terms`."""
        return (
            linear.attention_gemm_s,
            linear.mlp_gemm_s,
            linear.moe_s,
            prefill_s,
            decode_s,
            head.lm_head_s,
            linear.elementwise_s,
            head.sampling_s,
            vision_s,
            linear.communication_s + head.communication_s,
            launch_s,
            self.overhead.step_s,
        )
