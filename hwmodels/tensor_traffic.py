"""What tensor-parallel ranks exchange in their layers: by which algorithm, overlapped, compressed.

By default as vLLM does: an all-reduce after attention and one after the MLP, by the kernel that vLLM takes
for the size. The other ways are for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from ..errors import SimllmError
from ..units import DTYPE_BYTES
from . import ops
from .collectives import AllReduceAlgorithm, Collectives, vllm_all_reduce
from .engine_profile import EngineOverhead
from .kernel_times import KernelTimes
from .layers import LayerOps
from .ops import Launches

Compression = Literal["none", "fp8", "int8"]
# Ranks narrow what they send and widen what they get, before and after the sums.
# Source: Li et al., "Flash Communication" (arXiv 2412.04964) section 3: quantise, all-to-all, reduce,
# quantise, all-gather.
QUANTISATIONS = 2


@dataclass(frozen=True, slots=True)
class TensorCommunication:
    """How ranks exchange activations.

    all_reduce: `auto` for the engine's own choice by size. sequence_parallel: a reduce-scatter before and an
    all-gather after the norms, each rank norming its share of the tokens. overlap_share: of the time that
    computing hides (two micro-batches, or tiles of one product). compression: of what is sent.
    Raises: SimllmError for a share outside 0..1, or compressed sums by an algorithm that adds up as it sends.
    """

    all_reduce: AllReduceAlgorithm = "auto"
    sequence_parallel: bool = False
    overlap_share: float = 0.0
    compression: Compression = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_share <= 1:
            raise SimllmError(f"communication: overlap_share must be within 0..1, got {self.overlap_share}")
        if self.compression != "none" and self.all_reduce not in ("auto", "two_shot"):
            raise SimllmError(
                f"communication: compressed sums are two-shot, for {self.all_reduce} adds up what it forwards"
            )
        if self.sequence_parallel and self.all_reduce != "auto":
            raise SimllmError("communication: sequence_parallel has no all-reduce to choose an algorithm for")


AS_THE_ENGINE_DOES = TensorCommunication()


class TensorTraffic:
    """Times of the exchanges in the layers of one stage; all ranks of a TP group do the same at once."""

    def __init__(
        self,
        layers: LayerOps,
        times: KernelTimes,
        collectives: Collectives,
        overhead: EngineOverhead,
        *,
        tp: int,
        communication: TensorCommunication = AS_THE_ENGINE_DOES,
    ) -> None:
        self._layers = layers
        self._times = times
        self._collectives = collectives
        self._overhead = overhead
        self._tp = tp
        self._how = communication
        self._dtype = layers.precision.activation

    def norm_tokens(self, num_tokens: int) -> int:
        """Returns how many tokens' norms one rank computes."""
        return ceil(num_tokens / self._tp) if self._how.sequence_parallel else num_tokens

    def of_layers(self, num_tokens: int) -> tuple[float, int]:
        """Returns the time and number of collectives: after the embedding, and per layer two sums or one.

        Source: Megatron-LM (arXiv 1909.08053) section 3; one where attention and MLP run in parallel.
        """
        if self._tp == 1:
            return 0.0, 0
        model = self._layers.model
        per_layer = 1 if model.has_parallel_attention else 2
        num_sums = self._layers.ends.has_embedding + per_layer * model.num_layers
        num_bytes = num_tokens * model.hidden_size * DTYPE_BYTES[self._dtype]
        if self._how == AS_THE_ENGINE_DOES:
            return self._engine_s(num_bytes, num_sums), num_sums
        each_s, num_each = self._sum_s(num_tokens, num_bytes)
        return num_sums * each_s * (1 - self._how.overlap_share), num_sums * num_each

    def _engine_s(self, num_bytes: float, num_sums: int) -> float:
        """Returns the time of vLLM's all-reduces.

        Small ones are one kernel with the norm behind them, but those of experts, which lie inside an op that
        the compiler does not look into.
        Source: vLLM, compilation/collective_fusion.py, and fused_moe/layer.py (custom op `moe_forward`).
        """
        each_s = self._collectives.all_reduce_s(num_bytes, self._tp)
        if vllm_all_reduce(num_bytes, self._tp) == "nccl":
            return num_sums * self._overhead.large_reduce_ratio * each_s
        model = self._layers.model
        num_alone = 0 if model.has_parallel_attention else model.num_moe_layers
        return (num_alone + (num_sums - num_alone) * self._overhead.small_reduce_ratio) * each_s

    def _sum_s(self, num_tokens: int, num_bytes: float) -> tuple[float, int]:
        """Returns the time of one sum over the ranks, and its number of collectives."""
        how, collectives, tp = self._how, self._collectives, self._tp
        quantise_s = 0.0
        if how.compression != "none":
            num_elements = num_tokens * self._layers.model.hidden_size
            op = ops.quantize(num_elements, self._dtype, how.compression)
            timing = self._times.total([Launches(QUANTISATIONS, (op,))])
            quantise_s = timing.busy_s + timing.gap_s
            num_bytes *= DTYPE_BYTES[how.compression] / DTYPE_BYTES[self._dtype]
        if how.sequence_parallel:
            seconds = collectives.reduce_scatter_s(num_bytes, tp) + collectives.all_gather_s(num_bytes, tp)
            return seconds + quantise_s, 2
        algorithm: AllReduceAlgorithm = "two_shot" if how.compression != "none" else how.all_reduce
        return collectives.all_reduce_by_s(algorithm, num_bytes, tp) + quantise_s, 1
