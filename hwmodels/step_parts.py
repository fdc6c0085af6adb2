"""The parts of a step that contexts do not touch, worked out once per count and remembered.

Linear layers depend on the padded tokens, lm_head and sampler on the sampled rows, the vision tower on the
image tokens. Attention is in `attention_cost`; `roofline_step` puts the parts together.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import SimllmError
from ..units import DTYPE_BYTES
from .collectives import Collectives
from .kernel_times import KernelTimes
from .layers import LayerOps
from .tensor_traffic import TensorTraffic
from .vision_layers import vision_launches

# Beyond `_EXACT_TOKENS` the linear layers are priced at the next multiple of `_TOKEN_GRAIN` tokens, so that
# few sizes exist and each is worked out once.
# SIMPLIFIED: effect: up to 5 % too slow just above 256 tokens, below 1 % from 2,048 on.
_EXACT_TOKENS = 256
_TOKEN_GRAIN = 16

Costliest = tuple[float, str]
"""The largest of some terms [s] and what binds it."""


class LinearPart(NamedTuple):
    """Terms [s] that the padded tokens fix."""

    attention_gemm_s: float
    mlp_gemm_s: float
    moe_s: float
    elementwise_s: float
    communication_s: float
    busy_s: float
    gap_s: float
    matrix_s: float
    num_kernels: int
    costliest: Costliest
    is_extrapolated: bool


class HeadPart(NamedTuple):
    """Terms [s] that the sampled rows fix."""

    lm_head_s: float
    sampling_s: float
    communication_s: float
    busy_s: float
    gap_s: float
    num_kernels: int
    costliest: Costliest
    is_extrapolated: bool


class VisionPart(NamedTuple):
    """The vision tower [s], fixed by the image tokens."""

    busy_s: float
    gap_s: float
    num_kernels: int
    costliest: Costliest


_NO_HEAD = HeadPart(0.0, 0.0, 0.0, 0.0, 0.0, 0, (0.0, "none"), False)
_NO_VISION = VisionPart(0.0, 0.0, 0, (0.0, "none"))


class StepParts:
    """Prices the parts of one rank's step; all ranks of a TP group do the same at the same time."""

    def __init__(
        self,
        layers: LayerOps,
        times: KernelTimes,
        collectives: Collectives,
        traffic: TensorTraffic,
        *,
        tp: int,
        collective_gap_s: float,
    ) -> None:
        """`collective_gap_s`: gap and ramp of one collective's kernel, beyond its own time."""
        self._layers = layers
        self._times = times
        self._collectives = collectives
        self._traffic = traffic
        self._gap_s = collective_gap_s
        self._tp = tp
        self._activation_bytes = DTYPE_BYTES[layers.precision.activation]
        self._linear: dict[int, LinearPart] = {}
        self._head: dict[int, HeadPart] = {0: _NO_HEAD}
        self._has_head = layers.ends.has_head
        self._vision: dict[int, VisionPart] = {0: _NO_VISION}

    def linear(self, num_padded_tokens: int) -> LinearPart:
        """Returns linear layers, elementwise work and their all-reduces for that many tokens."""
        if num_padded_tokens > _EXACT_TOKENS:
            num_padded_tokens = -(-num_padded_tokens // _TOKEN_GRAIN) * _TOKEN_GRAIN
        part = self._linear.get(num_padded_tokens)
        if part is None:
            part = self._linear[num_padded_tokens] = self._price_linear(num_padded_tokens)
        return part

    def head(self, num_sampled: int) -> HeadPart:
        """Returns lm_head, gather of the logits and sampler for that many rows; 0 before the last stage."""
        if not self._has_head:
            return _NO_HEAD
        part = self._head.get(num_sampled)
        if part is None:
            part = self._head[num_sampled] = self._price_head(num_sampled)
        return part

    def vision(self, num_image_tokens: int) -> VisionPart:
        """Returns the vision tower for that many embeddings. Raises: SimllmError without a tower."""
        part = self._vision.get(num_image_tokens)
        if part is None:
            part = self._vision[num_image_tokens] = self._price_vision(num_image_tokens)
        return part

    def _price_linear(self, num_tokens: int) -> LinearPart:
        launches = self._layers.linear(num_tokens, self._traffic.norm_tokens(num_tokens))
        total = self._times.total
        attention_gemm, mlp_gemm = total(launches["attention_gemm"]), total(launches["mlp_gemm"])
        moe, elementwise = total(launches["moe"]), total(launches["elementwise"])
        timings = (attention_gemm, mlp_gemm, moe, elementwise)
        communication_s, num_collectives = self._traffic.of_layers(num_tokens)
        return LinearPart(
            attention_gemm.busy_s,
            mlp_gemm.busy_s,
            moe.busy_s,
            elementwise.busy_s,
            communication_s,
            busy_s=sum(timing.busy_s for timing in timings) + communication_s,
            gap_s=sum(timing.gap_s for timing in timings) + num_collectives * self._gap_s,
            matrix_s=sum(timing.matrix_s for timing in timings),
            num_kernels=sum(timing.num_kernels for timing in timings) + num_collectives,
            costliest=max((communication_s, "link"), *((timing.busy_s, timing.bound) for timing in timings)),
            is_extrapolated=any(timing.is_extrapolated for timing in timings),
        )

    def _price_head(self, num_sampled: int) -> HeadPart:
        launches = self._layers.head(num_sampled)
        lm_head, sampling = (self._times.total(launches[term]) for term in ("lm_head", "sampling"))
        gather_s, gap_s = 0.0, lm_head.gap_s + sampling.gap_s
        if self._tp > 1:
            gap_s += self._gap_s
            num_bytes = num_sampled * self._layers.model.vocab_size * self._activation_bytes
            gather_s = self._collectives.all_gather_s(num_bytes, self._tp)
        return HeadPart(
            lm_head.busy_s,
            sampling.busy_s,
            gather_s,
            busy_s=lm_head.busy_s + sampling.busy_s + gather_s,
            gap_s=gap_s,
            num_kernels=lm_head.num_kernels + sampling.num_kernels + (self._tp > 1),
            costliest=max(
                (lm_head.busy_s, lm_head.bound), (sampling.busy_s, sampling.bound), (gather_s, "link")
            ),
            is_extrapolated=lm_head.is_extrapolated or sampling.is_extrapolated,
        )

    def _price_vision(self, num_image_tokens: int) -> VisionPart:
        vision = self._layers.model.vision
        if vision is None:
            raise SimllmError(f"{self._layers.model.name} has no vision tower, but a step holds image tokens")
        launches = vision_launches(vision, num_image_tokens, self._layers.precision.activation)
        timing = self._times.total(launches)
        return VisionPart(timing.busy_s, timing.gap_s, timing.num_kernels, (timing.busy_s, timing.bound))
