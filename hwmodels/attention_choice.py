"""Which formulas price attention: measured or of the datasheet, of which algorithm, in which style."""

from __future__ import annotations

from collections.abc import Iterable

from .attention_algorithms import OLDER, AttentionImpl, OlderPrefill
from .attention_cost import DecodeAttention, DecodeCost, PrefillAttention, PrefillCost
from .attention_style import AttentionStyle, StyledDecode
from .calibrated_attention import CalibratedDecode, CalibratedPrefill
from .calibration import Calibration
from .device import DeviceSpec
from .kernel_times import KernelTimes
from .layers import LayerOps
from .paged_read import paged_read_factor
from .roofline import Roofline
from .step import Chunk, DecodeGroup

# Kernels per layer that attention over the KV cache launches: itself and the reduction of split KV.
ATTENTION_KERNELS = 2


def prefill_cost(
    layers: LayerOps,
    roofline: Roofline,
    calibration: Calibration | None,
    times: KernelTimes,
    attention_impl: AttentionImpl,
) -> PrefillCost:
    """Returns the attention of prefill chunks, measured where the profile has such heads."""
    if attention_impl in OLDER:
        return OlderPrefill(layers, roofline, attention_impl)
    point = None if calibration is None else calibration.prefill_point(layers)
    if calibration is None or point is None:
        return PrefillAttention(layers, roofline)
    return CalibratedPrefill(layers, calibration, point, times)


def decode_cost(
    layers: LayerOps,
    roofline: Roofline,
    calibration: Calibration | None,
    style: AttentionStyle,
    block_size: int | None,
) -> DecodeCost:
    """Returns the attention of decodes, measured where the profile has such heads.

    block_size: tokens per block of the cache, None where blocks are large or requests lie in one piece.
    """
    cost: DecodeCost
    factor = 1.0
    if block_size is not None and not style.reads_any_block_alike:
        factor = _read_factor(layers, roofline.device, block_size)
    point = None if calibration is None else calibration.decode_point(layers)
    if calibration is None or point is None:
        cost = DecodeAttention(layers, roofline, factor)
    else:
        cost = CalibratedDecode(layers, calibration, point, factor)
    return cost if style.is_plain else StyledDecode(cost, style, layers, roofline)


def _read_factor(layers: LayerOps, device: DeviceSpec, block_size: int) -> float:
    shape = layers.decode_shape()
    head_bytes = shape.kv_bytes_per_token / shape.num_kv_heads
    return paged_read_factor(device, block_size=block_size, head_bytes=head_bytes)


class AttentionLaunches:
    """The kernels of attention over the cache in one step, and the gaps that they leave [s]."""

    def __init__(
        self, style: AttentionStyle, layers: LayerOps, launch_s: float, *, is_calibrated: bool
    ) -> None:
        self._is_batched = style.is_batched
        num_layers, shape = layers.model.num_layers, layers.decode_shape()
        self._per_launch = ATTENTION_KERNELS * num_layers
        self._launch_s = launch_s
        extra = num_layers * style.num_extra_kernels(is_grouped=shape.num_q_heads > shape.num_kv_heads)
        # A measurement of one launch holds that launch's gap, not those of the others.
        gap_s = (extra if is_calibrated else extra + self._per_launch) * launch_s
        self._batched = (extra + self._per_launch, gap_s)

    def of_step(self, chunks: Iterable[Chunk], decodes: Iterable[DecodeGroup]) -> tuple[int, float]:
        """Returns both for a step of any composition."""
        if self._is_batched:
            return self._batched
        return self.of_requests(sum(chunk.count for chunk in chunks) + sum(group.count for group in decodes))

    def of_requests(self, num_requests: int) -> tuple[int, float]:
        """Returns both for so many requests, one at least."""
        if self._is_batched:
            return self._batched
        num_kernels, gap_s = self._batched
        num_more = (num_requests - 1) * self._per_launch
        return num_kernels + num_more, gap_s + num_more * self._launch_s
