"""Weights that live outside HBM, or on other GPUs: every step brings them in again, layer by layer.

While one layer computes, the next one's weights arrive in a second buffer. So a step takes what it computes
or what its weights take to arrive, whichever is longer; the first layer of a step arrives under the last
one of the step before.
Source: Aminabadi et al., "DeepSpeed Inference" (arXiv 2207.00032) section VI (ZeRO-Inference: streaming from
CPU or NVMe, prefetching, the layer gathered from shards on all GPUs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import SimllmError
from .collectives import PCIE_LATENCY_S, Collectives
from .device import DeviceSpec
from .link_profile import LinkEntry, LinkMode, LinkModel
from .roofline_step import TERMS, RooflineStepModel
from .step import DecodeGroup, DecodeLine, StepCost, StepShape

WeightPlacement = Literal["hbm", "dram", "nvme", "zero_sharded"]
# Layers in HBM at a time: the one that computes, and the one that arrives.
NUM_BUFFERS = 2
# One NVMe drive of a GPU server, sequential reads. Source: Samsung PM9A3 datasheet, U.2: 6,900 MB/s.
NVME_BYTES_PER_S = 6.9e9

Links = tuple[LinkEntry, ...]
_COMMUNICATION = TERMS.index("communication")
_MODES: tuple[LinkMode, ...] = ("graph", "eager")


@dataclass(frozen=True, slots=True)
class WeightsAway:
    """Where weights live that are not in HBM. num_shards: GPUs that hold a part of each layer, if sharded.

    Raises: SimllmError for shards of weights that are not sharded, or fewer than two.
    """

    placement: WeightPlacement
    num_shards: int = 1
    nvme_bytes_per_s: float = NVME_BYTES_PER_S

    def __post_init__(self) -> None:
        if (self.placement == "zero_sharded") != (self.num_shards > 1):
            raise SimllmError(
                f"weights: num_shards above 1 and placement zero_sharded go together, got "
                f"{self.placement} with num_shards={self.num_shards}"
            )

    def num_resident_layers(self, num_layers: int) -> float:
        """Returns the layers' worth of weights that one GPU holds."""
        if self.placement == "hbm":
            return num_layers
        held = num_layers / self.num_shards if self.placement == "zero_sharded" else 0.0
        return min(float(num_layers), held + NUM_BUFFERS)

    def arrival_s(
        self, layer_bytes: float, device: DeviceSpec, collectives: Collectives, links: Links
    ) -> float:
        """Returns the time until one layer of one rank is in HBM [s].

        SIMPLIFIED: replicas that share the host or shards fetch as if alone; effect: too fast where the
        host's memory or a drive is shared.
        """
        if self.placement == "zero_sharded":
            return collectives.all_gather_s(layer_bytes, self.num_shards)
        pcie_s = _pcie_s(layer_bytes, device, links)
        return max(pcie_s, layer_bytes / self.nvme_bytes_per_s) if self.placement == "nvme" else pcie_s


def _pcie_s(num_bytes: float, device: DeviceSpec, links: Links) -> float:
    """Returns the time of a copy from pinned memory: measured, or PCIe's datasheet rate."""
    model = LinkModel(links)
    for mode in _MODES:
        if model.has("host_to_device", "pinned", mode):
            found = model.predict("host_to_device", "pinned", num_bytes=num_bytes, num_gpus=1, mode=mode)
            return found.time_s
    if device.pcie_bytes_per_s_per_direction is None:
        raise SimllmError(f"device {device.name} has no PCIe rate, which weights outside HBM need")
    return PCIE_LATENCY_S + num_bytes / device.pcie_bytes_per_s_per_direction


class StreamedStepModel:
    """Costs of steps that wait for their weights; implements `StepModel`. The wait is communication.

    SIMPLIFIED: all experts of a layer arrive, chosen or not; effect: slow for models with experts.
    """

    terms: tuple[str, ...] = TERMS

    def __init__(self, resident: RooflineStepModel, arrival_s: float) -> None:
        """resident: the same step with all weights in HBM. arrival_s: all layers of one rank [s]."""
        self.resident = resident
        self.arrival_s = arrival_s
        self.parallel = resident.parallel
        self.precision = resident.precision
        self.cuda_graph = resident.cuda_graph

    def predict(self, shape: StepShape) -> StepCost:
        """Returns the cost of one step."""
        cost = self.resident.predict(shape)
        late_s = self.arrival_s - cost.duration_s
        if late_s <= 0.0:
            return cost
        terms = _waiting(cost.terms, late_s)
        return cost._replace(duration_s=cost.duration_s + late_s, terms=terms, bound="link")

    def decode_line(self, decodes: DecodeGroup, max_steps: int) -> DecodeLine:
        """Returns the cost of the coming decode steps, up to where they take longer than their weights."""
        line = self.resident.decode_line(decodes, max_steps)
        late_s = self.arrival_s - line.base_s
        if late_s <= 0.0:
            return line
        num_steps = line.num_steps
        if line.slope_s > 0.0:
            num_steps = min(num_steps, int(late_s / line.slope_s) + 1)
        return line._replace(
            base_s=self.arrival_s,
            slope_s=0.0,
            num_steps=num_steps,
            base_terms=_waiting(line.base_terms, late_s),
            slope_terms=_waiting(line.slope_terms, -line.slope_s),
            bound="link",
        )


def _waiting(terms: tuple[float, ...], late_s: float) -> tuple[float, ...]:
    changed = list(terms)
    changed[_COMMUNICATION] += late_s
    return tuple(changed)
