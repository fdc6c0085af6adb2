"""Prices engine steps from first principles: a `StepModel` over the roofline or the calibration of a device.

A step is a sum of terms: linear layers at the padded tokens, attention over every context, lm_head and
sampling of the sampled rows, collectives, gaps between launches, the engine's own overhead, and what the
power limit adds.
docs/cost-model.md explains each term and where its constants come from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ..errors import SimllmError
from .attention_algorithms import AttentionImpl
from .attention_choice import ATTENTION_KERNELS, AttentionLaunches, decode_cost, prefill_cost
from .attention_style import PAGED, AttentionStyle
from .calibration import Calibration
from .collectives import Collectives, tensor_link
from .compression import NO_COMPRESSION, KvCompression
from .cudagraph import CudaGraphSizes
from .device import DeviceSpec
from .engine_profile import EngineOverhead
from .expert_ranks import EVEN, ExpertRouting
from .kernel_times import CalibratedTimes, KernelTimes
from .layers import LayerOps
from .model import ModelSpec
from .parallel import ParallelSpec
from .precision import Precision
from .roofline import Efficiency, Roofline
from .stages import WHOLE, Ends
from .step import DecodeGroup, DecodeLine, StepCost, StepShape
from .step_parts import Costliest, HeadPart, LinearPart, StepParts
from .tensor_traffic import AS_THE_ENGINE_DOES, TensorCommunication, TensorTraffic

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
    "power_limit",
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
    limited_s: float
    cpu_s: float
    is_extrapolated: bool
    costliest: Costliest


class RooflineStepModel:
    """Costs of the steps of one tensor-parallel replica, or of one of its stages; implements `StepModel`.

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
        weight_group_size: int | None = None,
        kv_compression: KvCompression = NO_COMPRESSION,
        parallel: ParallelSpec | None = None,
        cuda_graph: CudaGraphSizes | None = None,
        overhead: EngineOverhead | None = None,
        efficiency: Efficiency | None = None,
        calibration: Calibration | None = None,
        attention_impl: AttentionImpl = "fa3",
        attention_style: AttentionStyle = PAGED,
        is_eager: bool = False,
        block_size: int | None = None,
        ends: Ends = WHOLE,
        routing: ExpertRouting = EVEN,
        communication: TensorCommunication = AS_THE_ENGINE_DOES,
    ) -> None:
        """`cuda_graph`: the sizes that `decode_line` pads to; None if every step launches eagerly.

        calibration: measured kernels; None prices all of them by the roofline. attention_impl: the algorithm
        of prompts' attention; which kernel of a calibration stands for `fa2` and `fa3` is its choice.
        attention_style: what the engine does otherwise than paged, fused, split-KV kernels. is_eager: its
        model is plain PyTorch. block_size: tokens per block of the cache; None if requests lie in one piece.
        ends: of a pipeline stage, whose layers `model` are (`pipeline_step` puts stages together).

        routing: which experts tokens choose. communication: how tensor-parallel ranks exchange activations.

        Raises: SimllmError for parallelism other than TP and EP, shapes that do not divide, or a dtype that
        the device has no units for.
        """
        self.parallel = parallel or ParallelSpec()
        if self.parallel.pp > 1 or self.parallel.dp > 1 or self.parallel.cp > 1:
            raise SimllmError(f"a stage's steps cover tensor and expert parallelism, got {self.parallel}")
        self.model = model
        self.precision = Precision.on(
            device,
            weight=weight_dtype,
            activation=activation_dtype,
            kv=kv_dtype,
            weight_group_size=weight_group_size,
            kv_compression=kv_compression,
        )
        self.roofline = Roofline(device, efficiency or Efficiency())
        self.overhead = overhead or EngineOverhead()
        if not ends.has_embedding:
            # Later stages prepare their inputs while the first one computes.
            self.overhead = replace(self.overhead, step_s=0.0)
        self.cuda_graph = cuda_graph or CudaGraphSizes(())
        layers = LayerOps(model, self.parallel, self.precision, is_eager=is_eager, ends=ends, routing=routing)
        times: KernelTimes = (
            self.roofline if calibration is None else CalibratedTimes(calibration, self.roofline)
        )
        links = () if calibration is None else calibration.links
        if self.parallel.tp > 1 and not links:
            tensor_link(device, self.roofline.efficiency)  # refuses a device without links
        collectives = Collectives(links, device, self.roofline.efficiency)
        gap_s = 0.0 if links else self.roofline.launch_s
        traffic = TensorTraffic(
            layers,
            times,
            collectives,
            self.overhead,
            tp=self.parallel.tp,
            communication=communication,
        )
        self._parts = StepParts(
            layers, times, collectives, traffic, tp=self.parallel.tp, collective_gap_s=gap_s
        )
        self._prefill = prefill_cost(layers, self.roofline, calibration, times, attention_impl)
        self._decode = decode_cost(layers, self.roofline, calibration, attention_style, block_size)
        self._attention = AttentionLaunches(
            attention_style, layers, self.roofline.launch_s, is_calibrated=calibration is not None
        )
        self._is_calibrated = calibration is not None
        self._slowdown = 0.0 if calibration is None else calibration.slowdown
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
        if shape.chunks:
            decode = (decode[0] * self.overhead.mixed_decode_ratio, decode[1])
        num_launches, attention_gap_s = self._attention.of_step(shape.chunks, shape.decodes)
        num_kernels = linear.num_kernels + head.num_kernels + vision.num_kernels + num_launches
        cpu_s = self._cpu_s(num_kernels, head.num_kernels + vision.num_kernels, shape.uses_cuda_graph)
        if shape.chunks and shape.uses_cuda_graph:
            cpu_s += self._piecewise_s
        launch_s = linear.gap_s + head.gap_s + vision.gap_s + attention_gap_s
        limited_s = self._slowdown * (linear.matrix_s + prefill[0] * (prefill[1] == "matrix"))
        waiting_s = cpu_s - (linear.busy_s + head.busy_s + vision.busy_s + prefill[0] + decode[0] + limited_s)
        gap_s = launch_s
        if waiting_s > launch_s:
            launch_s, bound = waiting_s, "launch"
        else:
            gaps = (launch_s, "launch")
            bound = max(self._costliest(linear, head, gaps), vision.costliest, prefill, decode)[1]
        terms = self._terms(linear, head, vision.busy_s, prefill[0], decode[0], launch_s, limited_s)
        is_extrapolated = self._is_calibrated and (
            linear.is_extrapolated or head.is_extrapolated or self._extrapolates(shape)
        )
        return StepCost(sum(terms), terms, bound, is_extrapolated, cpu_s, waiting_s=launch_s - gap_s)

    def _extrapolates(self, shape: StepShape) -> bool:
        """Returns whether a measurement of other sizes is behind the attention of a step."""
        if self._prefill.extrapolates(shape.chunks):
            return True
        return any(
            self._decode.extrapolates(query_len, count, sum_context)
            for query_len, count, sum_context, _ in shape.decodes
        )

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
        waiting_s = base.cpu_s - (base.busy_s + attention_s + base.limited_s)
        if waiting_s > base.gap_s:
            launch_s, launch_slope_s, bound = waiting_s, -slope_s, "launch"
            headroom_s = waiting_s - base.gap_s
        elif base.costliest[0] >= attention_s:
            headroom_s, bound = base.costliest[0] - attention_s, base.costliest[1]
        if headroom_s >= 0.0 and slope_s:
            num_steps = min(num_steps, int(headroom_s / slope_s) + 1)
        terms = (*base.before, attention_s, *base.between, launch_s, *base.after)
        slopes = (0.0, 0.0, 0.0, 0.0, slope_s, 0.0, 0.0, 0.0, 0.0, 0.0, launch_slope_s, 0.0, 0.0)
        is_extrapolated = self._is_calibrated and (
            base.is_extrapolated or self._decode.extrapolates(1, num_decodes, sum_context)
        )
        duration_s = sum(terms)
        return DecodeLine(
            duration_s, slope_s + launch_slope_s, num_steps, terms, slopes, bound, is_extrapolated
        )

    def _make_decode_base(self, num_decodes: int) -> _DecodeBase:
        linear = self._parts.linear(self.cuda_graph.pad(num_decodes))
        head = self._parts.head(num_decodes)
        num_launches, attention_gap_s = self._attention.of_requests(num_decodes)
        num_kernels = linear.num_kernels + head.num_kernels + num_launches
        gap_s = linear.gap_s + head.gap_s + attention_gap_s
        limited_s = self._slowdown * linear.matrix_s
        terms = self._terms(linear, head, 0.0, 0.0, 0.0, 0.0, limited_s)
        base = self._decode_bases[num_decodes] = _DecodeBase(
            before=terms[:_ATTENTION_DECODE],
            between=terms[_ATTENTION_DECODE + 1 : _LAUNCH],
            after=terms[_LAUNCH + 1 :],
            busy_s=linear.busy_s + head.busy_s,
            gap_s=gap_s,
            limited_s=limited_s,
            cpu_s=self._cpu_s(num_kernels, head.num_kernels, self.cuda_graph.captures(num_decodes)),
            is_extrapolated=linear.is_extrapolated or head.is_extrapolated,
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
        limited_s: float,
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
            limited_s,
        )
